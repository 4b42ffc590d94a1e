/* Two processes in one address space that are not threads of each other. */
#include "selfcheck.h"

static volatile int said, parent_said;
static pid_t seen_by_child;
static char *mapped;
static char stack[64 * 1024] __attribute__((aligned(64)));

static int child(void *argument)
{
	SAME((intptr_t)argument, 77);
	seen_by_child = getpid();
	set(&said, 1);
	hold();
	SAME(getpid(), seen_by_child);
	await(&parent_said, 1);
	mapped = private(PAGE);
	strcpy(mapped, "mapped by the child");
	set(&said, 2);
	return 3;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	pid_t pid = OK(clone(child, stack + sizeof stack, CLONE_VM | SIGCHLD, (void *)77));
	int status;
	await(&said, 1);
	SAME(seen_by_child, pid);
	ready_and_hold();
	set(&parent_said, 1);
	await(&said, 2);
	CHECK(strcmp(mapped, "mapped by the child") == 0);
	SAME(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status));
	SAME(WEXITSTATUS(status), 3);
	pass();
}
