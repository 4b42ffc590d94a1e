/* An address space stays registered for the commands of membarrier(2), and a child's for no others than its own. */
#include "selfcheck.h"
#include <linux/membarrier.h>

#define GET_REGISTRATIONS (1 << 9)

static int barrier(int command)
{
	return (int)syscall(SYS_membarrier, command, 0, 0);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct gate gate;
	gate_make(&gate);
	pid_t child = OK(fork());
	if (!child) {
		OK(barrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED));
		int now = OK(barrier(GET_REGISTRATIONS));
		gate_child_is_set(&gate);
		hold();
		SAME(barrier(GET_REGISTRATIONS), now);
		OK(barrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED));
		FAILS(barrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE), EPERM);
		_exit(0);
	}
	gate_wait(&gate, 1);
	OK(barrier(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED));
	OK(barrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED));
	OK(barrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE));
	int now = OK(barrier(GET_REGISTRATIONS));
	ready_and_hold();
	SAME(barrier(GET_REGISTRATIONS), now);
	OK(barrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED));
	OK(barrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED));
	OK(barrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE));
	reap(child);
	pass();
}
