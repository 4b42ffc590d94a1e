/* The heap at the program break: contents, and it grows and shrinks from where it was. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	char *start = OK(sbrk(64 * PAGE));
	fill(start, 64 * PAGE, 1);
	char *end = sbrk(0);
	ready_and_hold();
	CHECK(sbrk(0) == end);
	filled(start, 64 * PAGE, 1);
	CHECK(OK(sbrk(16 * PAGE)) == end);
	zeroed(end, 16 * PAGE);
	fill(end, 16 * PAGE, 2);
	OK(brk(end));
	CHECK(sbrk(0) == end);
	filled(start, 64 * PAGE, 1);
	for (int i = 0; i < 1000; i++)
		CHECK(malloc(1000));
	pass();
}
