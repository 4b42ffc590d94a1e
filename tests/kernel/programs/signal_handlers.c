/* Dispositions of every signal: handlers, flags, masks, ignored ones. */
#include "selfcheck.h"

/* As the kernel has it; glibc's sigaction(3) adds flags of its own. */
struct kernel_sigaction {
	void *handler;
	unsigned long flags;
	void *restorer;
	uint64_t mask;
};
static struct kernel_sigaction before[65];
static volatile sig_atomic_t got;
static void handler(int signal) { got = signal; }
static void handler_with_info(int signal, siginfo_t *info, void *context)
{
	(void)context;
	got = signal + info->si_value.sival_int;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	for (int signal = 1; signal < 65; signal++) {
		if (signal == SIGKILL || signal == SIGSTOP || signal == 32 || signal == 33)
			continue;
		struct sigaction action = {.sa_flags = signal % 3 ? SA_RESTART : 0};
		if (signal % 5 == 0)
			action.sa_handler = SIG_IGN;
		else if (signal % 2)
			action.sa_handler = handler;
		else
			action.sa_sigaction = handler_with_info, action.sa_flags |= SA_SIGINFO | SA_NODEFER;
		if (signal % 7 == 0)
			action.sa_handler = SIG_DFL, action.sa_flags = 0;
		sigemptyset(&action.sa_mask);
		for (int masked = 1; masked < 65; masked++)
			if (masked % (signal + 1) == 0 && masked != 32 && masked != 33)
				sigaddset(&action.sa_mask, masked);
		OK(sigaction(signal, &action, NULL));
	}
	for (int signal = 1; signal < 65; signal++)
		OK(syscall(SYS_rt_sigaction, signal, NULL, &before[signal], 8));
	ready_and_hold();
	for (int signal = 1; signal < 65; signal++) {
		struct kernel_sigaction now;
		OK(syscall(SYS_rt_sigaction, signal, NULL, &now, 8));
		if (memcmp(&now, &before[signal], sizeof now) != 0)
			FAIL("signal %d: handler %p flags %#lx restorer %p mask %#lx", signal, now.handler, now.flags, now.restorer, now.mask);
	}
	raise(SIGHUP);
	SAME(got, SIGHUP);
	OK(sigqueue(getpid(), SIGRTMIN + 2, (union sigval){.sival_int = 1000}));
	SAME(got, SIGRTMIN + 2 + 1000);
	raise(SIGTRAP); /* 5: ignored */
	SAME(got, SIGRTMIN + 2 + 1000);
	pass();
}
