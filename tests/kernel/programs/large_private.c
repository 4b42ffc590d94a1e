/* Large private memory of one process: written, only read, with holes, locked, at odd addresses. */
#include "selfcheck.h"

enum { MIB = 1 << 20 };

int main(int argc, char **argv)
{
	begin(argc, argv);
	char *rw = private(9 * MIB + 3 * PAGE);
	fill(rw, 9 * MIB + 3 * PAGE, 1);
	char *ro = private(5 * MIB);
	fill(ro, 5 * MIB, 2);
	OK(mprotect(ro, 5 * MIB, PROT_READ));
	char *holes = private(6 * MIB);
	fill(holes, 6 * MIB, 3);
	OK(madvise(holes + 2 * MIB, PAGE, MADV_DONTNEED));
	OK(madvise(holes + 5 * MIB + 7 * PAGE, 11 * PAGE, MADV_DONTNEED));
	char *locked = private(2 * MIB);
	fill(locked, 2 * MIB, 4);
	bool locks = mlock(locked, 2 * MIB) == 0;
	char *none = private(3 * MIB);
	fill(none, 3 * MIB, 5);
	OK(mprotect(none, 3 * MIB, PROT_NONE));
	ready_and_hold();
	filled(rw, 9 * MIB + 3 * PAGE, 1);
	filled(ro, 5 * MIB, 2);
	char *want = private(6 * MIB);
	fill(want, 6 * MIB, 3);
	memset(want + 2 * MIB, 0, PAGE);
	memset(want + 5 * MIB + 7 * PAGE, 0, 11 * PAGE);
	CHECK(memcmp(holes, want, 6 * MIB) == 0);
	if (locks)
		filled(locked, 2 * MIB, 4);
	OK(mprotect(none, 3 * MIB, PROT_READ));
	filled(none, 3 * MIB, 5);
	pass();
}
