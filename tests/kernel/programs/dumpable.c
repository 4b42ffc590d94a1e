/* The dumpable flag, set and cleared, in two processes; /proc/self belongs to whom it says. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct gate gate;
	gate_make(&gate);
	pid_t child = OK(fork());
	if (child == 0) {
		OK(prctl(PR_SET_DUMPABLE, 0));
		gate_child_is_set(&gate);
		hold();
		SAME(prctl(PR_GET_DUMPABLE), 0);
		_exit(0);
	}
	pid_t user = OK(fork());
	if (user == 0) {
		struct stat status;
		OK(setresgid(1001, 1001, 1001));
		OK(setresuid(1001, 1001, 1001));
		OK(prctl(PR_SET_DUMPABLE, 1));
		gate_child_is_set(&gate);
		hold();
		SAME(prctl(PR_GET_DUMPABLE), 1);
		OK(stat("/proc/self/mem", &status));
		SAME(status.st_uid, 1001);
		_exit(0);
	}
	gate_wait(&gate, 2);
	SAME(prctl(PR_GET_DUMPABLE), 1);
	ready_and_hold();
	SAME(prctl(PR_GET_DUMPABLE), 1);
	reap(child);
	reap(user);
	pass();
}
