/* Shared anonymous memory: parent, child and grandchild, part of it unmapped in one of them. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	const size_t size = 64 * PAGE;
	volatile int *stage = shared(PAGE);
	char *memory = shared(size), *alias = shared(2 * PAGE);
	fill(memory, size, 1);
	fill(alias, 2 * PAGE, 4);
	struct gate gate;
	gate_make(&gate);
	pid_t child = OK(fork());
	if (child == 0) {
		pid_t grandchild = OK(fork());
		if (grandchild == 0) {
			OK(munmap(memory, size / 2));
			gate_child_is_set(&gate);
			hold();
			await(stage, 2);
			SAME(memory[size - 1], 'b');
			memory[size - 1] = 'c';
			filled(alias, 2 * PAGE, 4);
			_exit(0);
		}
		/* a second view of the upper half, elsewhere */
		char *view = OK(mremap(memory + size / 2, 0, size / 2, MREMAP_MAYMOVE));
		gate_child_is_set(&gate);
		hold();
		await(stage, 1);
		SAME(view[size / 2 - 1], 'a');
		view[size / 2 - 1] = 'b';
		SAME(memory[size - 1], 'b');
		set(stage, 2);
		reap(grandchild);
		SAME(view[size / 2 - 1], 'c');
		_exit(0);
	}
	gate_wait(&gate, 2);
	ready_and_hold();
	filled(memory, size, 1);
	memory[size - 1] = 'a';
	set(stage, 1);
	reap(child);
	SAME(memory[size - 1], 'c');
	pass();
}
