/* A process whose parent has ended and that nobody in the job is the parent of. */
#include "selfcheck.h"

struct talk {
	pid_t orphan;
	int said;
};

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct talk *talk = shared(PAGE);
	pid_t middle = OK(fork());
	if (middle == 0) {
		pid_t self = getpid();
		if (OK(fork()) == 0) {
			while (getppid() == self)
				sched_yield();
			talk->orphan = getpid();
			set(&talk->said, 1);
			hold();
			SAME(getpid(), talk->orphan);
			set(&talk->said, 2);
			_exit(0);
		}
		_exit(0);
	}
	reap(middle);
	await(&talk->said, 1);
	ready_and_hold();
	await(&talk->said, 2);
	FAILS(waitpid(-1, NULL, WNOHANG), ECHILD);
	pass();
}
