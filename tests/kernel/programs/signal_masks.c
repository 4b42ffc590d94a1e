/* The blocked signals, and that they stay blocked. */
#include "selfcheck.h"

static volatile sig_atomic_t got;
static void handler(int signal) { got = signal; }

int main(int argc, char **argv)
{
	begin(argc, argv);
	sigset_t mask, now;
	sigemptyset(&mask);
	static const int blocked[] = {SIGINT, SIGTERM, SIGCHLD, SIGWINCH, SIGUSR2, SIGCONT};
	for (int i = 0; i < 6; i++)
		sigaddset(&mask, blocked[i]);
	sigaddset(&mask, SIGRTMIN);
	sigaddset(&mask, SIGRTMAX);
	OK(sigprocmask(SIG_SETMASK, &mask, NULL));
	signal(SIGINT, handler);
	ready_and_hold();
	OK(sigprocmask(SIG_SETMASK, NULL, &now));
	for (int signal = 1; signal < 65; signal++)
		if (signal != 32 && signal != 33)
			SAME(sigismember(&now, signal), sigismember(&mask, signal));
	raise(SIGINT);
	SAME(got, 0);
	sigemptyset(&mask);
	OK(sigprocmask(SIG_SETMASK, &mask, NULL));
	SAME(got, SIGINT);
	pass();
}
