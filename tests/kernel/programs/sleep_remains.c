/* A sleep that tells what is left goes on with that, and its argument is what it was. */
#include "blocked.h"

static const char *kind;

static void body(void)
{
	struct timespec time = {4, 0}, left = {-1, 0};
	double start = seconds(CLOCK_MONOTONIC);
	if (strcmp(kind, "nanosleep") == 0)
		OK(syscall(SYS_nanosleep, &time, &left));
	else
		SAME(clock_nanosleep(CLOCK_BOOTTIME, 0, &time, &left), 0);
	double slept = seconds(CLOCK_MONOTONIC) - start;
	SAME(time.tv_sec, 4);
	SAME(time.tv_nsec, 0);
	if (slept < 4 || slept > 6.2)
		FAIL("slept %f s of 4", slept);
}

int main(int argc, char **argv)
{
	pthread_t thread;
	struct blocked_body argument = {body};
	struct timespec most = {2, 500000000};
	begin(argc, argv);
	kind = argc > 2 ? argv[2] : "nanosleep";
	SAME(pthread_create(&thread, NULL, blocked_thread, &argument), 0);
	SAME(clock_nanosleep(CLOCK_MONOTONIC, 0, &most, NULL), 0);
	ready_and_hold();
	SAME(pthread_join(thread, NULL), 0);
	pass();
}
