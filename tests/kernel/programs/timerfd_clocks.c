/* Timers of every clock, by time left and by time of day, once and again, with expirations that nobody has read. */
#include "selfcheck.h"
#include <sys/timerfd.h>

static const clockid_t clocks[] = {CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME, CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM};
enum { CLOCKS = sizeof clocks / sizeof *clocks };

static clockid_t base(clockid_t clock)
{
	return clock == CLOCK_REALTIME_ALARM ? CLOCK_REALTIME : clock == CLOCK_BOOTTIME_ALARM ? CLOCK_BOOTTIME : clock;
}

static int timer(clockid_t clock, int flags, double first, long interval)
{
	int fd = OK(timerfd_create(clock, TFD_NONBLOCK));
	double at = first + (flags & TFD_TIMER_ABSTIME ? seconds(base(clock)) : 0);
	struct itimerspec spec = {.it_interval = {.tv_sec = interval}};
	spec.it_value = (struct timespec){.tv_sec = at, .tv_nsec = (at - (time_t)at) * 1e9};
	OK(timerfd_settime(fd, flags, &spec, NULL));
	return fd;
}

static void await_ticks(int fd)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
	while (strtoull(proc_field(path, "ticks:"), NULL, 10) == 0)
		sched_yield();
}

static bool near(int fd, double least, double most, long interval)
{
	struct itimerspec now;
	OK(timerfd_gettime(fd, &now));
	double left = now.it_value.tv_sec + now.it_value.tv_nsec / 1e9;
	return left > least && left <= most && now.it_interval.tv_sec == interval;
}

int main(int argc, char **argv)
{
	int after[CLOCKS], at[CLOCKS], again[CLOCKS], over[CLOCKS];
	uint64_t ticks;
	begin(argc, argv);
	for (int i = 0; i < CLOCKS; i++) {
		after[i] = timer(clocks[i], 0, 500, 0);
		at[i] = timer(clocks[i], TFD_TIMER_ABSTIME, 600, 7);
		again[i] = timer(clocks[i], 0, 0.001, 1000);
		over[i] = timer(clocks[i], 0, 0.001, 0);
		await_ticks(again[i]);
		await_ticks(over[i]);
	}
	ready_and_hold();
	for (int i = 0; i < CLOCKS; i++) {
		CHECK(near(after[i], 300, 500, 0));
		CHECK(near(at[i], 300, 600, 7));
		FAILS(read(after[i], &ticks, sizeof ticks), EAGAIN);
		FAILS(read(at[i], &ticks, sizeof ticks), EAGAIN);
		SAME(read(again[i], &ticks, sizeof ticks), sizeof ticks);
		SAME(ticks, 1);
		CHECK(near(again[i], 700, 1000, 1000));
		SAME(read(over[i], &ticks, sizeof ticks), sizeof ticks);
		SAME(ticks, 1);
		CHECK(near(over[i], -1, 0, 0));
		FAILS(read(over[i], &ticks, sizeof ticks), EAGAIN);
	}
	pass();
}
