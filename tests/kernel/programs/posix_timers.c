/* POSIX timers: their ids with gaps, clocks, notification, intervals, what is left; new ones get new ids. */
#include "selfcheck.h"

#define KERNEL_TIMER(timer) ((int)(timer))

static int make(clockid_t clock, struct sigevent *event)
{
	int id = -1;
	OK(syscall(SYS_timer_create, clock, event, &id));
	return id;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	sigset_t block;
	sigemptyset(&block);
	for (int i = 0; i < 5; i++)
		sigaddset(&block, SIGRTMIN + i);
	sigprocmask(SIG_BLOCK, &block, NULL);
	int ids[8];
	static const clockid_t clocks[8] = {CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME, CLOCK_MONOTONIC,
					    CLOCK_PROCESS_CPUTIME_ID, CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_MONOTONIC};
	for (int i = 0; i < 8; i++) {
		struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + i % 4, .sigev_value.sival_int = 70 + i};
		if (i == 5)
			event.sigev_notify = SIGEV_NONE;
		ids[i] = make(clocks[i], &event);
	}
	OK(syscall(SYS_timer_delete, ids[0]));
	OK(syscall(SYS_timer_delete, ids[3]));
	static const int kept[] = {1, 2, 4, 5, 6, 7};
	struct itimerspec spec = {{3, 500}, {600, 0}}, now;
	for (int k = 0; k < 5; k++) /* 7 stays disarmed */
		OK(syscall(SYS_timer_settime, ids[kept[k]], 0, &spec, NULL));
	double start = seconds(CLOCK_MONOTONIC);
	ready_and_hold();
	double gone = seconds(CLOCK_MONOTONIC) - start;
	for (int k = 0; k < 6; k++) {
		int i = kept[k];
		OK(syscall(SYS_timer_gettime, ids[i], &now));
		if (i == 7) {
			SAME(now.it_value.tv_sec + now.it_value.tv_nsec + now.it_interval.tv_sec, 0);
			continue;
		}
		SAME(now.it_interval.tv_sec, 3);
		SAME(now.it_interval.tv_nsec, 500);
		double left = now.it_value.tv_sec + now.it_value.tv_nsec / 1e9;
		if (left > 600.1 || left < 600 - gone - (clocks[i] == CLOCK_REALTIME ? 60 : 1))
			FAIL("%f s of 600 are left of timer %d after %f s", left, i, gone);
	}
	FAILS(syscall(SYS_timer_gettime, ids[0], &now), EINVAL);
	FAILS(syscall(SYS_timer_gettime, ids[3], &now), EINVAL);
	/* they fire with their signal and value */
	for (int k = 0; k < 6; k++) {
		int i = kept[k];
		siginfo_t info;
		struct timespec limit = {8, 0};
		spec = (struct itimerspec){{0, 0}, {0, 1000}};
		OK(syscall(SYS_timer_settime, ids[i], 0, &spec, NULL));
		if (i == 5)
			continue;
		if (i == 4)
			for (double from = seconds(CLOCK_PROCESS_CPUTIME_ID); seconds(CLOCK_PROCESS_CPUTIME_ID) < from + 0.05;)
				;
		sigset_t one;
		sigemptyset(&one);
		sigaddset(&one, SIGRTMIN + i % 4);
		SAME(sigtimedwait(&one, &info, &limit), SIGRTMIN + i % 4);
		SAME(info.si_code, SI_TIMER);
		SAME(info.si_value.sival_int, 70 + i);
		SAME(info.si_timerid, ids[i]);
	}
	struct sigevent event = {.sigev_notify = SIGEV_NONE};
	int fresh = make(CLOCK_MONOTONIC, &event);
	for (int k = 0; k < 6; k++)
		CHECK(fresh != ids[kept[k]]);
	pass();
}
