/* A tree of processes, five deep and two wide: ids, parents, and exit codes that arrive. */
#include "selfcheck.h"

enum { DEEP = 5, WIDE = 2 };

static void grow(int depth, struct gate *gate)
{
	pid_t self = getpid(), parent = getppid(), children[WIDE];
	for (int i = 0; depth < DEEP && i < WIDE; i++) {
		children[i] = OK(fork());
		if (children[i] == 0) {
			SAME(getppid(), self);
			grow(depth + 1, gate);
			_exit(10 + i);
		}
	}
	if (depth > 0) {
		gate_child_is_set(gate);
	} else {
		gate_wait(gate, (1 << (DEEP + 1)) - 2);
		ready();
	}
	hold();
	SAME(getpid(), self);
	if (depth > 0)
		SAME(getppid(), parent);
	for (int i = 0; depth < DEEP && i < WIDE; i++) {
		int status;
		SAME(waitpid(children[i], &status, 0), children[i]);
		CHECK(WIFEXITED(status));
		SAME(WEXITSTATUS(status), 10 + i);
	}
	FAILS(waitpid(-1, NULL, 0), ECHILD);
}

int main(int argc, char **argv)
{
	struct gate gate;
	begin(argc, argv);
	gate_make(&gate);
	grow(0, &gate);
	pass();
}
