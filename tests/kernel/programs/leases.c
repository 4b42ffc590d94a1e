/* Leases: who has them is told by a signal, with the descriptor's number, when somebody else opens the file. */
#include "selfcheck.h"

static void broken_by(const char *path, int flags, int fd, int signal)
{
	sigset_t one;
	siginfo_t info;
	struct timespec at_most = {.tv_sec = 10};
	sigemptyset(&one);
	sigaddset(&one, signal);
	pid_t child = OK(fork());
	if (child == 0)
		_exit(open(path, flags) < 0);
	SAME(sigtimedwait(&one, &info, &at_most), signal);
	if (signal != SIGIO)
		SAME(info.si_fd, fd);
	OK(fcntl(fd, F_SETLEASE, F_UNLCK));
	reap(child);
}

int main(int argc, char **argv)
{
	sigset_t blocked;
	begin(argc, argv);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGIO);
	sigaddset(&blocked, SIGRTMIN + 3);
	OK(sigprocmask(SIG_BLOCK, &blocked, NULL));
	close(OK(open(in_directory("../read"), O_CREAT | O_WRONLY, 0644)));
	int reads = OK(open(in_directory("../read"), O_RDONLY)), writes = OK(open(in_directory("../write"), O_CREAT | O_RDWR, 0644));
	OK(fcntl(reads, F_SETSIG, SIGRTMIN + 3));
	OK(fcntl(reads, F_SETLEASE, F_RDLCK));
	OK(fcntl(writes, F_SETLEASE, F_WRLCK));
	/* Not in the directory itself: whoever looks at a file there breaks its lease. */
	ready_and_hold();
	SAME(fcntl(reads, F_GETLEASE), F_RDLCK);
	SAME(fcntl(writes, F_GETLEASE), F_WRLCK);
	broken_by(in_directory("../read"), O_WRONLY, reads, SIGRTMIN + 3);
	broken_by(in_directory("../write"), O_RDONLY, writes, SIGIO);
	pass();
}
