/* A running alarm fires after the restore, at its interval. */
#include "selfcheck.h"
#include <sys/time.h>

static volatile sig_atomic_t fired;
static void handler(int signal) { (void)signal; fired++; }

int main(int argc, char **argv)
{
	begin(argc, argv);
	signal(SIGALRM, handler);
	struct itimerval real = {{0, 50000}, {0, 50000}};
	OK(setitimer(ITIMER_REAL, &real, NULL));
	ready_and_hold();
	int before = fired;
	double start = seconds(CLOCK_MONOTONIC);
	while (fired < before + 4)
		if (seconds(CLOCK_MONOTONIC) - start > 8)
			FAIL("fired %d times in 8 s", fired - before);
	if (seconds(CLOCK_MONOTONIC) - start < 0.1)
		FAIL("four rounds of 50 ms in %f s", seconds(CLOCK_MONOTONIC) - start);
	pass();
}
