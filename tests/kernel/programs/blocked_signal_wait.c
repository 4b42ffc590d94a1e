/* Waits for signals: sigtimedwait, sigwaitinfo, pause, sigsuspend, read of a signalfd. */
#include "blocked.h"
#include <sys/signalfd.h>

static const char *kind;
static int handled;
static void handler(int signal) { handled = signal; }

static void body(void)
{
	sigset_t one, none;
	siginfo_t info = {0};
	struct timespec time = {1000, 0}, brief = {1, 500000000};
	sigemptyset(&none);
	sigemptyset(&one);
	sigaddset(&one, SIGUSR1);
	if (strcmp(kind, "sigtimedwait") == 0) {
		SAME(OK(sigtimedwait(&one, &info, &time)), SIGUSR1);
		SAME(info.si_value.sival_int, 99);
	} else if (strcmp(kind, "sigtimedwait-timeout") == 0) {
		double start = seconds(CLOCK_MONOTONIC);
		FAILS(sigtimedwait(&one, &info, &brief), EAGAIN);
		double waited = seconds(CLOCK_MONOTONIC) - start;
		if (waited < 1.5 || waited > 6)
			FAIL("timed out after %f s of 1.5", waited);
	} else if (strcmp(kind, "sigwaitinfo") == 0) {
		SAME(OK(sigwaitinfo(&one, &info)), SIGUSR1);
		SAME(info.si_value.sival_int, 99);
	} else if (strcmp(kind, "pause") == 0) {
		pthread_sigmask(SIG_UNBLOCK, &one, NULL);
		FAILS(pause(), EINTR);
		SAME(handled, SIGUSR1);
	} else if (strcmp(kind, "sigsuspend") == 0) {
		FAILS(sigsuspend(&none), EINTR);
		SAME(handled, SIGUSR1);
		sigset_t now;
		pthread_sigmask(SIG_SETMASK, NULL, &now);
		SAME(sigismember(&now, SIGUSR1), 1); /* the mask of before the call */
	} else {
		struct signalfd_siginfo got;
		int fd = OK(signalfd(-1, &one, SFD_CLOEXEC));
		SAME(read(fd, &got, sizeof got), sizeof got);
		SAME(got.ssi_int, 99);
	}
}

static void wake(void)
{
	siginfo_t info = {.si_signo = SIGUSR1, .si_code = SI_QUEUE, .si_value.sival_int = 99};
	info.si_pid = getpid();
	OK(syscall(SYS_rt_tgsigqueueinfo, getpid(), blocked_tid, SIGUSR1, &info));
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	kind = argc > 2 ? argv[2] : "sigtimedwait";
	sigset_t one;
	sigemptyset(&one);
	sigaddset(&one, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &one, NULL);
	signal(SIGUSR1, handler);
	long call = strncmp(kind, "sigt", 4) == 0 || strncmp(kind, "sigw", 4) == 0 ? SYS_rt_sigtimedwait
		    : strcmp(kind, "pause") == 0				   ? SYS_pause
		    : strcmp(kind, "sigsuspend") == 0				   ? SYS_rt_sigsuspend
										   : SYS_read;
	hold_while_blocked(body, call, -2, strcmp(kind, "sigtimedwait-timeout") ? wake : NULL);
}
