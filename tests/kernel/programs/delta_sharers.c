/* Two processes with one memory, of which the first ends between checkpoints; files that are mapped privately. */
#include "phases.h"

enum { SIZE = 64 * PAGE };
static char *memory, *mapped;

static int other(void *unused)
{
	(void)unused;
	for (int phase = 2; phase <= 3; phase++) {
		memory[phase * PAGE] = phase;
		mapped[phase * PAGE] = phase;
		phase_is_over(phase);
	}
	OK(madvise(mapped + 4 * PAGE, PAGE, MADV_DONTNEED)); /* the file's again */
	memory[4 * PAGE] = 4;
	ready_and_hold();
	char *want = private(SIZE);
	fill(want, SIZE, 1);
	for (int page = 2; page <= 4; page++)
		want[page * PAGE] = page;
	CHECK(memcmp(memory, want, SIZE) == 0);
	fill(want, SIZE, 2);
	for (int page = 2; page <= 3; page++)
		want[page * PAGE] = page;
	CHECK(memcmp(mapped, want, SIZE) == 0);
	pass();
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	pid_t first = OK(fork());
	if (first) {
		reap(first);
		hold();
		while (access(in_directory("result"), F_OK) < 0)
			sched_yield();
		_exit(0);
	}
	memory = private(SIZE);
	fill(memory, SIZE, 1);
	int fd = OK(open(in_directory("mapped"), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	char *content = private(SIZE);
	fill(content, SIZE, 2);
	SAME(write(fd, content, SIZE), SIZE);
	mapped = OK(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
	close(fd);
	mapped[4 * PAGE] = 'x';
	char *stack = private(SIZE);
	phase_is_over(1);
	OK(clone(other, stack + SIZE, CLONE_VM | SIGCHLD, NULL));
	_exit(0);
}
