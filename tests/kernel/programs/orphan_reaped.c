/* A process that has lost its parent ends, and somebody outside the job reaps it, while the job's root goes on. */
#include "selfcheck.h"

struct talk {
	pid_t orphan;
	int said;
};

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct talk *talk = shared(PAGE);
	for (int i = 0; i < 3; i++) {
		pid_t middle = OK(fork());
		if (middle == 0) {
			pid_t self = getpid();
			if (OK(fork()) == 0) {
				while (getppid() == self)
					sched_yield();
				talk[i].orphan = getpid();
				set(&talk[i].said, 1);
				await(&talk[i].said, 2);
				_exit(i);
			}
			_exit(0);
		}
		reap(middle);
		await(&talk[i].said, 1);
	}
	ready_and_hold();
	for (int i = 0; i < 3; i++) {
		SAME(kill(talk[i].orphan, 0), 0);
		set(&talk[i].said, 2);
		while (kill(talk[i].orphan, 0) == 0)
			sched_yield();
		SAME(errno, ESRCH);
	}
	pass();
}
