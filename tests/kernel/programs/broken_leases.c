/* Leases that are being broken: what they are to become; nobody is told of it twice. */
#include "selfcheck.h"

enum { FILES = 4 };

static const struct {
	const char *name;
	int access, lease, breaker, becomes;
	const char *shown;
} kinds[FILES] = {
	{"../first", O_RDONLY, F_RDLCK, O_WRONLY, F_UNLCK, "UNLCK"},
	{"../second", O_WRONLY, F_WRLCK, O_RDONLY, F_RDLCK, "READ"},
	{"../third", O_RDWR, F_WRLCK, O_WRONLY, F_UNLCK, "UNLCK"},
	{"../fourth", O_RDONLY, F_WRLCK, O_RDONLY, F_RDLCK, "READ"},
};

static void is_breaking(int fd, const char *type)
{
	char path[64], found[16];
	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
	SAME(sscanf(proc_field(path, "lock:"), "%*d: LEASE BREAKING %15s", found), 1);
	CHECK(strcmp(found, type) == 0);
}

int main(int argc, char **argv)
{
	int fds[FILES];
	sigset_t one;
	siginfo_t info;
	struct timespec at_once = {0}, at_most = {.tv_sec = 10};
	begin(argc, argv);
	sigemptyset(&one);
	sigaddset(&one, SIGRTMIN + 3);
	OK(sigprocmask(SIG_BLOCK, &one, NULL));
	for (int i = 0; i < FILES; i++) {
		close(OK(open(in_directory(kinds[i].name), O_CREAT | O_WRONLY, 0644)));
		fds[i] = OK(open(in_directory(kinds[i].name), kinds[i].access));
		OK(fcntl(fds[i], F_SETSIG, SIGRTMIN + 3));
		OK(fcntl(fds[i], F_SETLEASE, kinds[i].lease));
		FAILS(open(in_directory(kinds[i].name), kinds[i].breaker | O_NONBLOCK), EWOULDBLOCK);
		SAME(sigtimedwait(&one, &info, &at_most), SIGRTMIN + 3);
		SAME(info.si_fd, fds[i]);
		is_breaking(fds[i], kinds[i].shown);
	}
	ready_and_hold();
	FAILS(sigtimedwait(&one, &info, &at_once), EAGAIN);
	for (int i = 0; i < FILES; i++) {
		SAME(fcntl(fds[i], F_GETLEASE), kinds[i].becomes);
		is_breaking(fds[i], kinds[i].shown);
	}
	/* A second, stronger breaker is told of as before; and everybody can give in. */
	FAILS(open(in_directory(kinds[1].name), O_WRONLY | O_NONBLOCK), EWOULDBLOCK);
	SAME(sigtimedwait(&one, &info, &at_most), SIGRTMIN + 3);
	SAME(info.si_fd, fds[1]);
	for (int i = 0; i < FILES; i++) {
		OK(fcntl(fds[i], F_SETLEASE, F_UNLCK));
		close(OK(open(in_directory(kinds[i].name), O_RDWR | O_NONBLOCK)));
	}
	pass();
}
