/* Memory that the kernel, or somebody else, writes to in place of the program. */
#include "phases.h"
#include <sys/random.h>
#include <sys/uio.h>

enum { SIZE = 64 * PAGE };

static void by_everybody(char *memory, char *huge, uint64_t seed)
{
	char *source = private(SIZE);
	fill(source, SIZE, seed);
	int pipes[2];
	OK(pipe2(pipes, O_CLOEXEC));
	SAME(write(pipes[1], source, PAGE), PAGE);
	SAME(read(pipes[0], memory, PAGE), PAGE);
	close(pipes[0]);
	close(pipes[1]);
	int fd = OK(open("/proc/self/mem", O_RDWR | O_CLOEXEC));
	(void)*(volatile char *)(memory + 2 * PAGE); /* one that is brought only now is not waited for */
	SAME(pwrite(fd, source + 2 * PAGE, PAGE, (off_t)(memory + 2 * PAGE)), PAGE);
	close(fd);
	struct iovec from = {source + 4 * PAGE, PAGE}, to = {memory + 4 * PAGE, PAGE};
	SAME(process_vm_writev(getpid(), &from, 1, &to, 1, 0), PAGE);
	fd = OK(open(in_directory("direct"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
	SAME(write(fd, source + 6 * PAGE, PAGE), PAGE);
	close(fd);
	fd = open(in_directory("direct"), O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (fd < 0) /* not every file system has it */
		fd = OK(open(in_directory("direct"), O_RDONLY | O_CLOEXEC));
	SAME(read(fd, memory + 6 * PAGE, PAGE), PAGE);
	close(fd);
	pid_t child = OK(vfork()); /* in our memory */
	if (child == 0) {
		memory[8 * PAGE] = seed;
		_exit(0);
	}
	reap(child);
	huge[3 * PAGE + 1] = seed; /* one page of a huge one */
	OK(munmap(source, SIZE));
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	size_t large = 2 << 20;
	char *memory = private(SIZE), *room = private(2 * large);
	char *huge = (char *)(((uintptr_t)room + large - 1) & ~(large - 1));
	madvise(huge, large, MADV_HUGEPAGE);
	fill(memory, SIZE, 1);
	fill(huge, large, 2);
	for (int phase = 1; phase <= 3; phase++) {
		phase_is_over(phase);
		by_everybody(memory, huge, 100 + phase);
	}
	ready_and_hold();
	char *want = private(SIZE), *last = private(SIZE), *whole = private(large);
	fill(want, SIZE, 1);
	fill(last, SIZE, 103);
	for (int page = 0; page < 8; page += 2)
		memcpy(want + page * PAGE, last + page * PAGE, PAGE);
	want[8 * PAGE] = 103;
	CHECK(memcmp(memory, want, SIZE) == 0);
	fill(whole, large, 2);
	whole[3 * PAGE + 1] = 103;
	CHECK(memcmp(huge, whole, large) == 0);
	pass();
}
