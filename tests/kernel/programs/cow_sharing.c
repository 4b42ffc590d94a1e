/* Memory shared by fork takes its room once: the job's proportional size must not multiply. */
#include "selfcheck.h"

enum { CHILDREN = 3, MEGABYTES = 16 };

/* The proportional and resident size of one mapping, in kB. */
static void sizes(char *at, long *pss, long *rss)
{
	FILE *file = fopen("/proc/self/smaps", "re");
	char line[512];
	bool here = false;
	*pss = *rss = -1;
	while (fgets(line, sizeof line, file)) {
		unsigned long from, to;
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			here = from <= (unsigned long)at && (unsigned long)at < to;
		if (here) {
			sscanf(line, "Pss: %ld", pss);
			sscanf(line, "Rss: %ld", rss);
		}
	}
	fclose(file);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct gate gate;
	gate_make(&gate);
	const size_t size = MEGABYTES << 20;
	char *memory = OK(mmap(NULL, size + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) + PAGE;
	OK(mprotect(memory, size, PROT_READ | PROT_WRITE));
	madvise(memory, size, MADV_NOHUGEPAGE);
	fill(memory, size, 1);
	volatile long *pss = shared(PAGE);
	volatile int *stage = (int *)(pss + 16);
	pid_t child[CHILDREN];
	for (int i = 0; i < CHILDREN; i++) {
		child[i] = OK(fork());
		if (child[i] == 0) {
			long rss, mine;
			memory[i * PAGE] = i;
			gate_child_is_set(&gate);
			hold();
			sizes(memory, &mine, &rss);
			pss[i] = mine;
			__atomic_add_fetch(stage, 1, __ATOMIC_SEQ_CST);
			await(stage, CHILDREN + 100);
			_exit(0);
		}
	}
	gate_wait(&gate, CHILDREN);
	ready_and_hold();
	await(stage, CHILDREN);
	long mine, rss, sum;
	sizes(memory, &mine, &rss);
	sum = mine + pss[0] + pss[1] + pss[2];
	__atomic_add_fetch(stage, 100, __ATOMIC_SEQ_CST);
	if (sum > (MEGABYTES << 10) * 3 / 2)
		FAIL("four processes hold %ld kB of what they share, %d kB each", sum, MEGABYTES << 10);
	for (int i = 0; i < CHILDREN; i++)
		reap(child[i]);
	pass();
}
