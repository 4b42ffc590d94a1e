/* Resource limits, soft and hard, and another process's different ones. */
#include "selfcheck.h"
#include <sys/resource.h>

static void lower(struct rlimit *into, int by)
{
	static const int lowered[] = {RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_CORE, RLIMIT_NOFILE, RLIMIT_STACK, RLIMIT_AS, RLIMIT_NPROC};
	static const rlim_t soft[] = {5000, 1 << 30, 0, 200, 4 << 20, 1UL << 40, 5000}, hard[] = {6000, 1UL << 31, 1 << 20, 300, 6 << 20, 1UL << 41, 6000};
	for (int i = 0; i < 7; i++) {
		struct rlimit limit = {soft[i] + by * 4096, hard[i] + by * 4096};
		OK(setrlimit(lowered[i], &limit));
	}
	for (int i = 0; i < RLIM_NLIMITS; i++)
		OK(getrlimit(i, &into[i]));
}

static void check(const struct rlimit *want)
{
	for (int i = 0; i < RLIM_NLIMITS; i++) {
		struct rlimit now;
		OK(getrlimit(i, &now));
		if (now.rlim_cur != want[i].rlim_cur || now.rlim_max != want[i].rlim_max)
			FAIL("limit %d is %lu:%lu, not %lu:%lu", i, now.rlim_cur, now.rlim_max, want[i].rlim_cur, want[i].rlim_max);
	}
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct rlimit mine[RLIM_NLIMITS];
	struct gate gate;
	gate_make(&gate);
	lower(mine, 1);
	pid_t child = OK(fork());
	if (child == 0) {
		lower(mine, 0);
		gate_child_is_set(&gate);
		hold();
		check(mine);
		_exit(0);
	}
	gate_wait(&gate, 1);
	ready_and_hold();
	check(mine);
	reap(child);
	pass();
}
