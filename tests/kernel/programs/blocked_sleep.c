/* Sleeps: relative and absolute, by either clock, without EINTR and not too short. */
#include "blocked.h"

static const char *kind;

static void body(void)
{
	struct timespec time = {1, 500000000}, left; /* the kernel writes it at each interruption, also of a sleep that goes on */
	bool boot = strcmp(kind, "boottime") == 0, absolute = strcmp(kind, "absolute") == 0;
	clockid_t clock = boot ? CLOCK_BOOTTIME : CLOCK_MONOTONIC;
	double start = seconds(clock);
	if (absolute) {
		OK(clock_gettime(clock, &time));
		time.tv_sec += 1;
		time.tv_nsec = 0;
		SAME(clock_nanosleep(clock, TIMER_ABSTIME, &time, NULL), 0);
		if (seconds(clock) < time.tv_sec)
			FAIL("woke %f s early", time.tv_sec - seconds(clock));
		return;
	}
	if (boot)
		SAME(clock_nanosleep(clock, 0, &time, &left), 0);
	else
		OK(nanosleep(&time, &left));
	double slept = seconds(clock) - start;
	if (slept < 1.5 || slept > 6)
		FAIL("slept %f s of 1.5", slept);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	kind = argc > 2 ? argv[2] : "relative";
	hold_while_blocked(body, SYS_nanosleep, SYS_clock_nanosleep, NULL);
}
