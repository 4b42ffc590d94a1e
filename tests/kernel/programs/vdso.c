/* The vDSO: time by vDSO and by system call agree, cpu numbers come, at the addresses of before. */
#include "selfcheck.h"
#include <sys/auxv.h>
#include <sys/time.h>

int main(int argc, char **argv)
{
	begin(argc, argv);
	unsigned long base = getauxval(AT_SYSINFO_EHDR);
	struct timespec fast, slow;
	OK(clock_gettime(CLOCK_MONOTONIC, &fast));
	ready_and_hold();
	SAME(getauxval(AT_SYSINFO_EHDR), base);
	CHECK(memcmp((void *)base, "\177ELF", 4) == 0);
	static const clockid_t clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW, CLOCK_MONOTONIC_COARSE};
	for (int i = 0; i < 5; i++)
		for (int again = 0; again < 1000; again++) {
			OK(clock_gettime(clocks[i], &fast));
			OK(syscall(SYS_clock_gettime, clocks[i], &slow));
			double gap = (slow.tv_sec - fast.tv_sec) + (slow.tv_nsec - fast.tv_nsec) / 1e9;
			if (gap < 0 || gap > 5)
				FAIL("clock %d: the call is %f s after the vDSO", clocks[i], gap);
		}
	struct timeval now;
	OK(gettimeofday(&now, NULL));
	CHECK(llabs((long long)time(NULL) - now.tv_sec) <= 1);
	CHECK(sched_getcpu() >= 0);
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512];
	int vdso = 0, vvar = 0;
	while (fgets(line, sizeof line, maps)) {
		vdso += strstr(line, "[vdso]") && strtoul(line, NULL, 16) == base;
		vvar += strstr(line, "[vvar") != NULL;
	}
	SAME(vdso, 1);
	CHECK(vvar >= 1);
	pass();
}
