/* The login that a process belongs to for the audit log; a child's own. */
#include "selfcheck.h"

static void log_in(const char *uid)
{
	int fd = OK(open("/proc/self/loginuid", O_WRONLY | O_CLOEXEC));
	SAME(write(fd, uid, strlen(uid)), strlen(uid));
	close(fd);
}

static long login(void)
{
	char text[16] = "";
	int fd = OK(open("/proc/thread-self/loginuid", O_RDONLY | O_CLOEXEC));
	OK(read(fd, text, sizeof text - 1));
	close(fd);
	return atol(text);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct gate gate;
	gate_make(&gate);
	long before = login();
	pid_t plain = OK(fork());
	if (!plain) {
		hold();
		SAME(login(), before);
		_exit(0);
	}
	log_in("4711");
	pid_t child = OK(fork());
	if (!child) {
		OK(setresuid(1000, 1000, 1000));
		gate_child_is_set(&gate);
		hold();
		SAME(login(), 4711);
		_exit(0);
	}
	gate_wait(&gate, 1);
	ready_and_hold();
	SAME(login(), 4711);
	reap(child);
	reap(plain);
	pass();
}
