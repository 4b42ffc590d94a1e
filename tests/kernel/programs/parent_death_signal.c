/* PR_SET_PDEATHSIG, held by a process and by a thread's own child. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	volatile int *stage = shared(PAGE);
	pid_t parent = OK(fork());
	if (parent == 0) {
		pid_t child = OK(fork());
		if (child == 0) {
			sigset_t set_of;
			int kept = 0, got;
			sigemptyset(&set_of);
			sigaddset(&set_of, SIGUSR2);
			sigprocmask(SIG_BLOCK, &set_of, NULL);
			OK(prctl(PR_SET_PDEATHSIG, SIGUSR2));
			set(stage, 1);
			hold();
			OK(prctl(PR_GET_PDEATHSIG, &kept));
			SAME(kept, SIGUSR2);
			set(stage, 2);
			do
				got = sigwaitinfo(&set_of, NULL);
			while (got < 0 && errno == EINTR);
			SAME(got, SIGUSR2);
			set(stage, 3);
			_exit(0);
		}
		hold();
		await(stage, 2);
		_exit(0);
	}
	await(stage, 1);
	ready_and_hold();
	reap(parent);
	await(stage, 3);
	pass();
}
