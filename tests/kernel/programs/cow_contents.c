/* Memory shared by fork: whoever wrote has its own, whoever did not has the old, and nobody sees the other's. */
#include "selfcheck.h"

enum { CHILDREN = 4, PAGES = 256 };

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct gate gate;
	gate_make(&gate);
	char *memory = private(PAGES * PAGE);
	fill(memory, PAGES * PAGE, 1);
	char *want = private(PAGES * PAGE);
	fill(want, PAGES * PAGE, 1);
	pid_t child[CHILDREN];
	for (int i = 0; i < CHILDREN; i++) {
		child[i] = OK(fork());
		if (child[i])
			continue;
		/* each child: its own pages, one page given back, one range unmapped */
		for (int page = i; page < PAGES; page += 8)
			memory[page * PAGE] = 100 + i;
		OK(madvise(memory + (200 + i) * PAGE, PAGE, MADV_DONTNEED));
		OK(munmap(memory + (240 + i) * PAGE, PAGE));
		gate_child_is_set(&gate);
		hold();
		for (int page = 0; page < PAGES; page++) {
			unsigned char vec;
			char *at = memory + page * PAGE;
			if (page == 240 + i)
				FAILS(mincore(at, PAGE, &vec), ENOMEM);
			else if (page == 200 + i)
				zeroed(at, PAGE);
			else {
				SAME(*at, page % 8 == i ? 100 + i : want[page * PAGE]);
				CHECK(memcmp(at + 1, want + page * PAGE + 1, PAGE - 1) == 0);
			}
		}
		for (int page = 0; page < 200; page++)
			memory[page * PAGE + 5] = i;
		_exit(0);
	}
	gate_wait(&gate, CHILDREN);
	memory[0] = 'P'; /* the parent writes after the forks */
	ready_and_hold();
	for (int i = 0; i < CHILDREN; i++)
		reap(child[i]);
	SAME(memory[0], 'P');
	memory[0] = want[0];
	CHECK(memcmp(memory, want, PAGES * PAGE) == 0);
	pass();
}
