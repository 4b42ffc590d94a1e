/* Random writes between checkpoints, all over a large memory; at the end each word must be what was written last. */
#include "phases.h"

enum { PAGES = 6000, WRITES = 400 };

static void write_at_random(char *memory, uint64_t seed)
{
	uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
	for (int i = 0; i < WRITES; i++) {
		size_t page = next_random(&state) % PAGES, word = next_random(&state) % (PAGE / 8);
		int run = next_random(&state) % 16 ? 1 : 32;
		for (size_t at = page; at < page + run && at < PAGES; at++)
			((uint64_t *)(memory + at * PAGE))[word] = next_random(&state);
	}
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	char *memory = private(PAGES * PAGE);
	fill(memory, PAGES * PAGE / 2, 7); /* the other half is touched by and by */
	write_at_random(memory, 1);
	for (int phase = 1; phase <= 3; phase++) {
		phase_is_over(phase);
		write_at_random(memory, phase + 1);
	}
	ready_and_hold();
	char *again = private(PAGES * PAGE);
	fill(again, PAGES * PAGE / 2, 7);
	for (int phase = 1; phase <= 4; phase++)
		write_at_random(again, phase);
	for (size_t at = 0; at < PAGES * PAGE; at += PAGE)
		if (memcmp(memory + at, again + at, PAGE) != 0)
			FAIL("page %zu is not what was written", at / PAGE);
	pass();
}
