/* Monotonic and boot time go on from where they were: not back, and not by the time that was slept through. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	static const clockid_t clocks[] = {CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW};
	double before[3], longest = argc > 2 ? atof(argv[2]) : 15;
	for (int i = 0; i < 3; i++)
		before[i] = seconds(clocks[i]);
	ready_and_hold();
	for (int i = 0; i < 3; i++) {
		double gone = seconds(clocks[i]) - before[i];
		if (gone < 0)
			FAIL("clock %d went back by %f s", i, -gone);
		if (gone > longest)
			FAIL("clock %d jumped by %f s", i, gone);
	}
	CHECK(seconds(CLOCK_PROCESS_CPUTIME_ID) >= 0);
	pass();
}
