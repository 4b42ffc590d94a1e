/* A hundred children. */
#include "selfcheck.h"

enum { COUNT = 100 };

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct gate gate;
	gate_make(&gate);
	pid_t child[COUNT];
	for (int i = 0; i < COUNT; i++) {
		child[i] = OK(fork());
		if (child[i] == 0) {
			gate_child_is_set(&gate);
			hold();
			_exit(i);
		}
	}
	gate_wait(&gate, COUNT);
	ready_and_hold();
	for (int i = 0; i < COUNT; i++) {
		int status;
		SAME(waitpid(child[i], &status, 0), child[i]);
		SAME(WEXITSTATUS(status), i);
	}
	pass();
}
