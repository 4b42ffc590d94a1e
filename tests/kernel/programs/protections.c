/* Protections: unreadable and read-only memory that has contents, and every mix in a row. */
#include "selfcheck.h"
#include <setjmp.h>

static sigjmp_buf back;
static void segv(int signal) { siglongjmp(back, signal); }

/* Whether an access faults. */
static bool faults(volatile char *at, bool write)
{
	if (sigsetjmp(back, 1))
		return true;
	if (write)
		*at = *at;
	else
		(void)*at;
	return false;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	signal(SIGSEGV, segv);
	char *none = private(4 * PAGE), *readonly = private(4 * PAGE), *mixed = private(64 * PAGE);
	fill(none, 4 * PAGE, 1);
	fill(readonly, 4 * PAGE, 2);
	fill(mixed, 64 * PAGE, 3);
	OK(mprotect(none, 4 * PAGE, PROT_NONE));
	OK(mprotect(readonly, 4 * PAGE, PROT_READ));
	for (int page = 0; page < 64; page++)
		OK(mprotect(mixed + page * PAGE, PAGE, page % 4 == 0 ? PROT_NONE : page % 4 == 1 ? PROT_READ : PROT_READ | PROT_WRITE));
	char *empty = OK(mmap(NULL, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
	ready_and_hold();
	CHECK(faults(none, false) && faults(none + 3 * PAGE, false));
	CHECK(!faults(readonly, false) && faults(readonly, true));
	CHECK(faults(empty, false));
	for (int page = 0; page < 64; page++) {
		SAME(faults(mixed + page * PAGE, false), page % 4 == 0);
		SAME(faults(mixed + page * PAGE, true), page % 4 < 2);
	}
	OK(mprotect(none, 4 * PAGE, PROT_READ | PROT_WRITE));
	OK(mprotect(mixed, 64 * PAGE, PROT_READ | PROT_WRITE));
	filled(none, 4 * PAGE, 1);
	filled(readonly, 4 * PAGE, 2);
	filled(mixed, 64 * PAGE, 3);
	pass();
}
