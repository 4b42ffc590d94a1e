/* Children share pages with each other that their parent has written to since; so do a grandchild and its uncles. */
#include "selfcheck.h"

enum { CHILDREN = 3, MEGABYTES = 8 };
static const size_t SIZE = MEGABYTES << 20;

static long pss_of(char *at)
{
	FILE *file = fopen("/proc/self/smaps", "re");
	char line[512];
	bool here = false;
	long pss = -1;
	while (fgets(line, sizeof line, file)) {
		unsigned long from, to;
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			here = from <= (unsigned long)at && (unsigned long)at < to;
		if (here)
			sscanf(line, "Pss: %ld", &pss);
	}
	fclose(file);
	return pss;
}

static void live(struct gate *gate, char *memory, const char *want, int number, volatile long *pss, volatile int *stage)
{
	memory[number * PAGE] = 77;
	gate_child_is_set(gate);
	hold();
	for (size_t at = 0; at < SIZE; at += PAGE)
		if (at != (size_t)number * PAGE)
			CHECK(memcmp(memory + at, want + at, PAGE) == 0);
	SAME(memory[number * PAGE], 77);
	pss[number] = pss_of(memory);
	__atomic_add_fetch(stage, 1, __ATOMIC_SEQ_CST);
	await(stage, CHILDREN + 1 + 100);
	memory[PAGE * 9] = number; /* and nobody else sees it */
	SAME(memory[PAGE * 9 + 1], want[PAGE * 9 + 1]);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct gate gate;
	gate_make(&gate);
	char *memory = OK(mmap(NULL, SIZE + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) + PAGE;
	OK(mprotect(memory, SIZE, PROT_READ | PROT_WRITE));
	madvise(memory, SIZE, MADV_NOHUGEPAGE);
	fill(memory, SIZE, 1);
	char *want = shared(SIZE);
	fill(want, SIZE, 1);
	volatile long *pss = shared(PAGE);
	volatile int *stage = (int *)(pss + 16);
	pid_t child[CHILDREN];
	for (int i = 0; i < CHILDREN; i++) {
		child[i] = OK(fork());
		if (child[i])
			continue;
		pid_t grandchild = 0;
		if (i == 0 && !(grandchild = OK(fork())))
			i = CHILDREN;
		live(&gate, memory, want, i, pss, stage);
		if (grandchild)
			reap(grandchild);
		_exit(0);
	}
	gate_wait(&gate, CHILDREN + 1);
	/* its own: half rewritten, a quarter given back, a quarter out of the children's reach */
	fill(memory, SIZE / 2, 2);
	OK(madvise(memory + SIZE / 2, SIZE / 4, MADV_DONTNEED));
	OK(mprotect(memory + SIZE / 4 * 3, SIZE / 4, PROT_READ));
	ready_and_hold();
	await(stage, CHILDREN + 1);
	char *mine = private(SIZE / 2);
	fill(mine, SIZE / 2, 2);
	CHECK(memcmp(memory, mine, SIZE / 2) == 0);
	zeroed(memory + SIZE / 2, SIZE / 4);
	CHECK(memcmp(memory + SIZE / 4 * 3, want + SIZE / 4 * 3, SIZE / 4) == 0);
	long sum = 0;
	for (int i = 0; i <= CHILDREN; i++)
		sum += pss[i];
	__atomic_add_fetch(stage, 100, __ATOMIC_SEQ_CST);
	if (sum > (MEGABYTES << 10) * 3 / 2)
		FAIL("%d processes hold %ld kB of what they share, %d kB each", CHILDREN + 1, sum, MEGABYTES << 10);
	for (int i = 0; i < CHILDREN; i++)
		reap(child[i]);
	pass();
}
