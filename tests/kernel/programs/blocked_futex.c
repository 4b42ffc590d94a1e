/* Futex waits: without a time-out, relative, absolute, and a process-shared semaphore. */
#include "blocked.h"
#include <linux/futex.h>
#include <semaphore.h>

static volatile int word;
static const char *kind;

/* Whoever stops a task for a moment (a debugger, too) takes it out of the queue, and it looks at the word again. */
static void wait_for_wake(int operation, struct timespec *time)
{
	if (syscall(SYS_futex, &word, operation, 0, time, NULL, 0) < 0 && errno != EAGAIN)
		FAIL("futex: %s", strerror(errno));
}

static void body(void)
{
	struct timespec time = {1, 500000000};
	double start = seconds(CLOCK_MONOTONIC);
	if (strcmp(kind, "untimed") == 0) {
		wait_for_wake(FUTEX_WAIT, NULL);
		SAME(word, 1);
	} else if (strcmp(kind, "relative") == 0) {
		FAILS(syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &time, NULL, 0), ETIMEDOUT);
		double waited = seconds(CLOCK_MONOTONIC) - start;
		if (waited < 1.5 || waited > 6)
			FAIL("timed out after %f s of 1.5", waited);
	} else if (strcmp(kind, "absolute") == 0) {
		OK(clock_gettime(CLOCK_MONOTONIC, &time));
		time.tv_sec += 2;
		FAILS(syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE, 0, &time, NULL, FUTEX_BITSET_MATCH_ANY), ETIMEDOUT);
		double late = seconds(CLOCK_MONOTONIC) - time.tv_sec - time.tv_nsec / 1e9;
		if (late < 0 || late > 5)
			FAIL("timed out %f s after its time", late);
	} else {
		/* woken in time although it has one */
		time.tv_sec = 1000;
		wait_for_wake(FUTEX_WAIT_PRIVATE, &time);
		SAME(word, 1);
	}
}

static void wake(void)
{
	set(&word, 1);
	OK(syscall(SYS_futex, &word, strcmp(kind, "untimed") ? FUTEX_WAKE_PRIVATE : FUTEX_WAKE, 1, NULL, NULL, 0));
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	kind = argc > 2 ? argv[2] : "untimed";
	bool times_out = strcmp(kind, "relative") == 0 || strcmp(kind, "absolute") == 0;
	hold_while_blocked(body, SYS_futex, SYS_restart_syscall, times_out ? NULL : wake);
}
