/* Private anonymous memory: contents, pages never touched, single pages between holes. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	const size_t size = 1024 * PAGE;
	char *full = private(size), *sparse = private(size), *holes = private(size), *untouched = private(size);
	fill(full, size, 1);
	for (size_t page = 0; page < 1024; page += 7)
		fill(sparse + page * PAGE, PAGE, page);
	fill(holes, size, 3);
	for (size_t page = 1; page < 1024; page += 5)
		OK(munmap(holes + page * PAGE, PAGE));
	/* Pages that were read only are the zero page. */
	zeroed(untouched, 16 * PAGE);
	/* Contents given back are zeros again. */
	OK(madvise(full, 8 * PAGE, MADV_DONTNEED));
	ready_and_hold();
	zeroed(full, 8 * PAGE);
	/* fill() depends on the offset: check the rest against a fresh copy. */
	char *want = malloc(size);
	fill(want, size, 1);
	CHECK(memcmp(full + 8 * PAGE, want + 8 * PAGE, size - 8 * PAGE) == 0);
	for (size_t page = 0; page < 1024; page++)
		if (page % 7 == 0)
			filled(sparse + page * PAGE, PAGE, page);
		else
			zeroed(sparse + page * PAGE, PAGE);
	fill(want, size, 3);
	for (size_t page = 0; page < 1024; page++) {
		unsigned char vec;
		if (page % 5 == 1)
			FAILS(mincore(holes + page * PAGE, PAGE, &vec), ENOMEM);
		else
			CHECK(memcmp(holes + page * PAGE, want + page * PAGE, PAGE) == 0);
	}
	zeroed(untouched, size);
	fill(full, size, 9);
	filled(full, size, 9);
	pass();
}
