/* Memory that is given back by madvise(2) before it was ever touched: it is zero, and nothing comes to it any more. */
#include "selfcheck.h"

#define PIECE (1UL << 20)
#define HALF (PIECE / 2)

int main(int argc, char **argv)
{
	begin(argc, argv);
	char *at = private(4 * PIECE);
	fill(at, 4 * PIECE, 1);
	char *copy = malloc(4 * PIECE);
	ready_and_hold();
	/* all of a piece, a part of it, each second page, and one that is read before */
	OK(madvise(at, PIECE, MADV_DONTNEED));
	OK(madvise(at + PIECE, HALF, MADV_FREE));
	for (size_t i = 0; i < PIECE / PAGE; i += 2)
		OK(madvise(at + 2 * PIECE + i * PAGE, PAGE, MADV_DONTNEED));
	SAME(at[3 * PIECE], at[3 * PIECE]);
	OK(madvise(at + 3 * PIECE, HALF, MADV_DONTNEED));
	at[3 * PIECE + 1] = 7;
	fill(copy, 4 * PIECE, 1);
	memset(copy, 0, PIECE);
	for (size_t i = 0; i < PIECE / PAGE; i += 2)
		memset(copy + 2 * PIECE + i * PAGE, 0, PAGE);
	memset(copy + 3 * PIECE, 0, HALF);
	copy[3 * PIECE + 1] = 7;
	for (int turn = 0; turn < 2; turn++) {
		SAME(memcmp(at, copy, PIECE), 0);
		for (size_t i = 0; i < HALF / PAGE; i++) /* what is free may be as it was, or not any more */
			if (memcmp(at + PIECE + i * PAGE, copy + PIECE + i * PAGE, PAGE) != 0)
				zeroed(at + PIECE + i * PAGE, PAGE);
		SAME(memcmp(at + PIECE + HALF, copy + PIECE + HALF, 2 * PIECE + HALF), 0);
		memset(at + PIECE, 5, HALF);
		memset(copy + PIECE, 5, HALF);
	}
	pass();
}
