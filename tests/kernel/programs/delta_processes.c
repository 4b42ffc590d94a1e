/* Processes that come, go, write, and become other programs between checkpoints. */
#include "phases.h"

enum { SIZE = 128 * PAGE };
struct common {
	int phase, done;
};

/* Started anew in between, with the same process id and other memory. */
static void second_program(int argc, char **argv)
{
	begin(argc, argv);
	char *memory = private(SIZE);
	fill(memory, SIZE, 77);
	publish("became", "x\n");
	hold();
	filled(memory, SIZE, 77);
	_exit(0);
}

int main(int argc, char **argv)
{
	if (argc == 3)
		second_program(argc, argv);
	begin(argc, argv);
	struct common *common = shared(PAGE);
	char *memory = private(SIZE), *together = shared(SIZE);
	fill(memory, SIZE, 1);
	fill(together, SIZE, 2);

	pid_t stays = OK(fork());
	if (stays == 0) { /* writes a page in each phase */
		await(&common->phase, 1);
		memory[5 * PAGE] = 5;
		set(&common->done, 1);
		await(&common->phase, 2);
		memory[6 * PAGE] = 6;
		set(&common->done, 2);
		hold();
		char *want = private(SIZE);
		fill(want, SIZE, 1);
		want[5 * PAGE] = 5;
		want[6 * PAGE] = 6;
		CHECK(memcmp(memory, want, SIZE) == 0);
		_exit(0);
	}
	pid_t becomes = OK(fork());
	if (becomes == 0) {
		await(&common->phase, 1);
		char *again[] = {argv[0], argv[1], "again", NULL};
		execv("/proc/self/exe", again);
		FAIL("execv: %s", strerror(errno));
	}
	pid_t ends = OK(fork());
	if (ends == 0) {
		await(&common->phase, 1);
		_exit(0);
	}
	phase_is_over(1);

	set(&common->phase, 1);
	await(&common->done, 1);
	reap(ends);
	char path[sizeof test_directory + 16];
	snprintf(path, sizeof path, "%s/became", test_directory);
	while (access(path, F_OK) < 0)
		sched_yield();
	memory[0] = 'A'; /* the parent's, the child's stays */
	pid_t late = OK(fork());
	if (late == 0) { /* was not there when writes began to be noted */
		memory[9 * PAGE] = 9;
		set(&common->done, 3);
		hold();
		SAME(memory[0], 'A');
		SAME(memory[9 * PAGE], 9);
		_exit(0);
	}
	await(&common->done, 3);
	fill(together + SIZE / 2, SIZE / 2, 3);
	phase_is_over(2);

	set(&common->phase, 2);
	await(&common->done, 2);
	memory[1 * PAGE] = 'B';
	together[0] = 'T';
	phase_is_over(3);
	memory[2 * PAGE] = 'C';
	ready_and_hold();
	reap(stays);
	reap(becomes);
	reap(late);
	char *want = private(SIZE);
	fill(want, SIZE, 1);
	want[0] = 'A';
	want[1 * PAGE] = 'B';
	want[2 * PAGE] = 'C';
	CHECK(memcmp(memory, want, SIZE) == 0);
	fill(want, SIZE, 2);
	want[0] = 'T';
	fill(want + SIZE / 2, SIZE / 2, 3);
	CHECK(memcmp(together, want, SIZE) == 0);
	pass();
}
