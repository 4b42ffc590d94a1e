/* Siblings with one descriptor table that is not their parent's (CLONE_PARENT). */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	volatile int *stage = shared(PAGE), *sibling = stage + 1;
	pid_t first = OK(fork());
	if (first == 0) {
		pid_t second = OK(syscall(SYS_clone, CLONE_PARENT | CLONE_FILES | SIGCHLD, NULL, NULL, NULL, 0));
		if (second == 0) {
			await(stage, 1);
			hold();
			OK(dup2(OK(open("/dev/null", O_RDONLY)), 60));
			set(stage, 2);
			_exit(0);
		}
		set(sibling, second);
		set(stage, 1);
		hold();
		await(stage, 2);
		OK(fcntl(60, F_GETFD));
		_exit(0);
	}
	await(stage, 1);
	ready_and_hold();
	reap(first);
	reap(*sibling);
	FAILS(fcntl(60, F_GETFD), EBADF);
	pass();
}
