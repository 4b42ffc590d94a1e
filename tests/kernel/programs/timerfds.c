/* timerfd: relative, absolute, disarmed, with an interval, with ticks that nobody has read. */
#include "selfcheck.h"
#include <poll.h>
#include <sys/timerfd.h>

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct itimerspec spec = {{10, 5}, {500, 0}}, now;
	uint64_t ticks = 0;
	int relative = OK(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK)), absolute = OK(timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC));
	int disarmed = OK(timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK)), ticked = OK(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
	int once = OK(timerfd_create(CLOCK_BOOTTIME, 0)), running = OK(timerfd_create(CLOCK_MONOTONIC, 0));
	OK(timerfd_settime(relative, 0, &spec, NULL));
	double start = seconds(CLOCK_MONOTONIC);
	OK(clock_gettime(CLOCK_REALTIME, &spec.it_value));
	spec.it_value.tv_sec += 400;
	spec.it_interval = (struct timespec){0, 0};
	OK(timerfd_settime(absolute, TFD_TIMER_ABSTIME, &spec, NULL));
	/* one-shot, expired and not read */
	spec = (struct itimerspec){{0, 0}, {0, 1000}};
	OK(timerfd_settime(once, 0, &spec, NULL));
	/* periodic with a long period, ticked three times and not read */
	spec = (struct itimerspec){{300, 0}, {0, 1000}};
	OK(timerfd_settime(ticked, 0, &spec, NULL));
	spec = (struct itimerspec){{0, 20000000}, {0, 20000000}};
	OK(timerfd_settime(running, 0, &spec, NULL));
	struct pollfd polls[2] = {{.fd = once, .events = POLLIN}, {.fd = ticked, .events = POLLIN}};
	while (!(polls[0].revents && polls[1].revents))
		OK(poll(polls, 2, -1));
	ready_and_hold();
	double gone = seconds(CLOCK_MONOTONIC) - start;
	OK(timerfd_gettime(relative, &now));
	SAME(now.it_interval.tv_sec, 10);
	SAME(now.it_interval.tv_nsec, 5);
	double left = now.it_value.tv_sec + now.it_value.tv_nsec / 1e9;
	if (left > 500.1 || left < 500 - gone - 1)
		FAIL("%f s of 500 are left after %f s", left, gone);
	FAILS(read(relative, &ticks, 8), EAGAIN);
	OK(timerfd_gettime(absolute, &now));
	SAME(now.it_interval.tv_sec, 0);
	left = now.it_value.tv_sec + now.it_value.tv_nsec / 1e9;
	if (left > 400.1 || left < 340)
		FAIL("%f s of 400 are left of the absolute one", left);
	SAME(fcntl(absolute, F_GETFD), FD_CLOEXEC);
	OK(timerfd_gettime(disarmed, &now));
	SAME(now.it_value.tv_sec + now.it_value.tv_nsec, 0);
	FAILS(read(disarmed, &ticks, 8), EAGAIN);
	SAME(read(once, &ticks, 8), 8);
	SAME(ticks, 1);
	OK(timerfd_gettime(once, &now));
	SAME(now.it_value.tv_sec + now.it_value.tv_nsec, 0);
	SAME(read(ticked, &ticks, 8), 8);
	SAME(ticks, 1);
	OK(timerfd_gettime(ticked, &now));
	SAME(now.it_interval.tv_sec, 300);
	CHECK(now.it_value.tv_sec >= 280 && now.it_value.tv_sec <= 300);
	SAME(read(running, &ticks, 8), 8);
	SAME(read(running, &ticks, 8), 8); /* goes on ticking */
	CHECK(ticks >= 1);
	pass();
}
