/* setitimer: all three, with what is left and the interval; and one that fires after the restore. */
#include "selfcheck.h"
#include <sys/time.h>

static volatile sig_atomic_t fired;
static void handler(int signal) { (void)signal; fired++; }

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct itimerval now, real = {{5, 250000}, {900, 0}}, virt = {{7, 0}, {800, 0}}, prof = {{0, 0}, {700, 0}};
	OK(setitimer(ITIMER_REAL, &real, NULL));
	OK(setitimer(ITIMER_VIRTUAL, &virt, NULL));
	OK(setitimer(ITIMER_PROF, &prof, NULL));
	double start = seconds(CLOCK_MONOTONIC);
	ready_and_hold();
	double gone = seconds(CLOCK_MONOTONIC) - start;
	OK(getitimer(ITIMER_REAL, &now));
	SAME(now.it_interval.tv_sec, 5);
	SAME(now.it_interval.tv_usec, 250000);
	double left = now.it_value.tv_sec + now.it_value.tv_usec / 1e6;
	if (left > 900.1 || left < 900 - gone - 1)
		FAIL("%f s of 900 are left of the real timer after %f s", left, gone);
	OK(getitimer(ITIMER_VIRTUAL, &now));
	SAME(now.it_interval.tv_sec, 7);
	CHECK(now.it_value.tv_sec >= 790 && now.it_value.tv_sec <= 800);
	OK(getitimer(ITIMER_PROF, &now));
	SAME(now.it_interval.tv_sec, 0);
	CHECK(now.it_value.tv_sec >= 690 && now.it_value.tv_sec <= 700);
	signal(SIGALRM, handler);
	real = (struct itimerval){{0, 0}, {0, 1000}};
	OK(setitimer(ITIMER_REAL, &real, NULL));
	while (!fired)
		sched_yield();
	pass();
}
