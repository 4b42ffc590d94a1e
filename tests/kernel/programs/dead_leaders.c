/* A group and a session whose leaders are dead and gone. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct gate gate;
	gate_make(&gate);
	OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
	pid_t *left = shared(PAGE);
	pid_t session = OK(fork());
	if (session == 0) {
		OK(setsid());
		for (int i = 0; i < 2; i++) {
			pid_t child = OK(fork());
			if (child) {
				left[i] = child;
			} else {
				gate_child_is_set(&gate);
				hold();
				CHECK(getsid(0) != getpid());
				_exit(0);
			}
		}
		_exit(0);
	}
	reap(session);
	pid_t group = OK(fork());
	if (group == 0) {
		OK(setpgid(0, 0));
		pid_t child = OK(fork());
		if (child) {
			left[2] = child;
		} else {
			gate_child_is_set(&gate);
			hold();
			CHECK(getpgrp() != getpid());
			_exit(0);
		}
		_exit(0);
	}
	reap(group);
	gate_wait(&gate, 3);
	ready_and_hold();
	for (int i = 0; i < 3; i++) {
		int status;
		if (i < 2) {
			/* still there or already a zombie of ours: either way it has its ids */
			SAME(getsid(left[i]), session);
			SAME(getpgid(left[i]), session);
		} else {
			SAME(getsid(left[i]), getsid(0));
			SAME(getpgid(left[i]), group);
		}
		SAME(waitpid(left[i], &status, 0), left[i]);
		SAME(status, 0);
	}
	pass();
}
