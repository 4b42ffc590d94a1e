/* The same for a process: CLONE_CHILD_CLEARTID in shared memory. */
#include "selfcheck.h"
#include <linux/futex.h>

int main(int argc, char **argv)
{
	begin(argc, argv);
	volatile int *word = shared(PAGE);
	*word = -1;
	/* It is cleared only while another process has the memory, so that is shared: CLONE_VM, by a vfork-less clone. */
	static char stack[65536] __attribute__((aligned(16)));
	int body(void *argument)
	{
		(void)argument;
		hold();
		return 0;
	}
	pid_t child = OK(clone(body, stack + sizeof stack, CLONE_VM | CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID | SIGCHLD, NULL, NULL, NULL, (int *)word));
	await(word, child);
	ready_and_hold();
	await(word, 0);
	reap(child);
	pass();
}
