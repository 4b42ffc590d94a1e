/* mlockall(2) for mappings to come: kept by a process, and not by its child. */
#include "selfcheck.h"

static bool locked(void)
{
	char *page = private(PAGE);
	unsigned char in_core = 0;
	OK(mincore(page, PAGE, &in_core));
	OK(munmap(page, PAGE));
	return in_core & 1;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	OK(mlockall(MCL_FUTURE));
	CHECK(locked());
	struct gate gate;
	gate_make(&gate);
	pid_t child = OK(fork());
	if (child == 0) {
		gate_child_is_set(&gate);
		hold();
		CHECK(!locked());
		_exit(0);
	}
	gate_wait(&gate, 1);
	ready_and_hold();
	CHECK(locked());
	reap(child);
	OK(munlockall());
	CHECK(!locked());
	pass();
}
