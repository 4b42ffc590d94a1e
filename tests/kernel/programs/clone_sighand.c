/* Two processes with one table of signal handlers (and one memory, which that needs). */
#include "selfcheck.h"

static volatile int stage;
static volatile sig_atomic_t handled;
static char stack[64 * 1024] __attribute__((aligned(64)));
static void handler(int signal) { handled = signal; }

static int child(void *argument)
{
	(void)argument;
	set(&stage, 1);
	await(&stage, 2);
	struct sigaction action = {.sa_handler = handler};
	OK(sigaction(SIGUSR1, &action, NULL));
	set(&stage, 3);
	return 0;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	pid_t pid = OK(clone(child, stack + sizeof stack, CLONE_VM | CLONE_SIGHAND | SIGCHLD, NULL));
	await(&stage, 1);
	ready_and_hold();
	struct sigaction action;
	OK(sigaction(SIGUSR1, NULL, &action));
	CHECK(action.sa_handler == SIG_DFL);
	set(&stage, 2);
	await(&stage, 3);
	OK(sigaction(SIGUSR1, NULL, &action));
	CHECK(action.sa_handler == handler);
	raise(SIGUSR1);
	SAME(handled, SIGUSR1);
	reap(pid);
	pass();
}
