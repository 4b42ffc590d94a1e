/* Held inside a signal handler that runs on the alternate stack; it returns after the restore. */
#include "selfcheck.h"

static stack_t stack;
static volatile sig_atomic_t done;
static void handler(int signal, siginfo_t *info, void *context)
{
	char here;
	(void)context;
	stack_t now;
	SAME(signal, SIGUSR1);
	ready_and_hold();
	OK(sigaltstack(NULL, &now));
	SAME(now.ss_flags, SS_ONSTACK);
	CHECK(&here > (char *)stack.ss_sp && &here < (char *)stack.ss_sp + stack.ss_size);
	SAME(info->si_pid, getpid());
	SAME(info->si_value.sival_int, 4711);
	done = 1;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	volatile double kept = argc * 1.5;
	stack.ss_size = 128 * 1024;
	stack.ss_sp = private(stack.ss_size);
	OK(sigaltstack(&stack, NULL));
	struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_ONSTACK | SA_SIGINFO};
	OK(sigaction(SIGUSR1, &action, NULL));
	OK(sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 4711}));
	SAME(done, 1);
	CHECK(kept == argc * 1.5);
	pass();
}
