/* A child subreaper stays one: orphans of before and of after come to it. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	int flag = 0;
	volatile int *stage = shared(PAGE);
	OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
	pid_t middle = OK(fork());
	if (middle == 0) {
		if (OK(fork()) == 0) {
			hold();
			_exit(5);
		}
		_exit(0);
	}
	reap(middle);
	pid_t later = OK(fork());
	if (later == 0) {
		if (OK(fork()) == 0) {
			hold();
			await(stage, 1);
			_exit(6);
		}
		hold();
		_exit(0);
	}
	ready_and_hold();
	OK(prctl(PR_GET_CHILD_SUBREAPER, &flag));
	SAME(flag, 1);
	reap(later);
	set(stage, 1);
	int codes = 0, status;
	for (int i = 0; i < 2; i++) {
		OK(waitpid(-1, &status, 0));
		codes += WEXITSTATUS(status);
	}
	SAME(codes, 11);
	FAILS(waitpid(-1, &status, 0), ECHILD);
	pass();
}
