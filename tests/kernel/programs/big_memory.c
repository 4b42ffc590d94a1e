/* More memory than fits any buffer on the way. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	const size_t size = 200UL << 20;
	char *memory = private(size);
	fill(memory, size, 4);
	ready_and_hold();
	filled(memory, size, 4);
	pass();
}
