/* Two processes with one descriptor table. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	volatile int *stage = shared(PAGE), *fd = stage + 1;
	pid_t child = OK(syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, 0));
	if (child == 0) {
		set(stage, 1);
		await(stage, 2);
		*fd = OK(open("/dev/null", O_RDWR));
		OK(dup2(*fd, 50));
		set(stage, 3);
		await(stage, 4);
		FAILS(fcntl(50, F_GETFD), EBADF);
		_exit(0);
	}
	await(stage, 1);
	ready_and_hold();
	set(stage, 2);
	await(stage, 3);
	OK(fcntl(*fd, F_GETFD));
	OK(fcntl(50, F_GETFD));
	OK(close(50));
	set(stage, 4);
	reap(child);
	pass();
}
