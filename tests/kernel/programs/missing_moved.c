/* Memory that is moved, cut, covered and protected by calls of which each is the first to touch it. */
#include "selfcheck.h"

#define PIECE (1UL << 20)
#define HALF (PIECE / 2)

static void move_elsewhere(char *at)
{
	char *free_place = private(PIECE);
	OK(munmap(free_place, PIECE));
	char *to = OK(mremap(at, PIECE, PIECE, MREMAP_MAYMOVE | MREMAP_FIXED, free_place));
	filled(to, PIECE, 1);
}

static void move_over_another(char *at, char *other)
{
	char *to = OK(mremap(at, PIECE, PIECE, MREMAP_MAYMOVE | MREMAP_FIXED, other));
	filled(to, PIECE, 2);
}

static void move_in_a_circle(char *one, char *two)
{
	char *free_place = private(PIECE);
	OK(mremap(one, PIECE, PIECE, MREMAP_MAYMOVE | MREMAP_FIXED, free_place));
	OK(mremap(two, PIECE, PIECE, MREMAP_MAYMOVE | MREMAP_FIXED, one));
	OK(mremap(free_place, PIECE, PIECE, MREMAP_MAYMOVE | MREMAP_FIXED, two));
	filled(one, PIECE, 5);
	filled(two, PIECE, 4);
}

static void grow_and_shrink(char *at)
{
	char *to = OK(mremap(at, PIECE, 2 * PIECE, MREMAP_MAYMOVE));
	zeroed(to + PIECE, PIECE);
	filled(to, PIECE, 6);
	OK(mremap(to, 2 * PIECE, HALF, 0));
	to = OK(mremap(to, HALF, PIECE, MREMAP_MAYMOVE));
	zeroed(to + HALF, HALF);
	filled(to, HALF, 6);
}

static void leave_mapped(char *at)
{
	char *to = OK(mremap(at, PIECE, PIECE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL));
	zeroed(at, PIECE);
	filled(to, PIECE, 7);
}

static void cut_and_cover(char *at)
{
	OK(munmap(at + 16 * PAGE, 16 * PAGE));
	OK(mmap(at + 64 * PAGE, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	OK(mmap(at + 16 * PAGE, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	zeroed(at + 16 * PAGE, 16 * PAGE);
	zeroed(at + 64 * PAGE, 16 * PAGE);
	char *copy = malloc(PIECE);
	fill(copy, PIECE, 8);
	memset(copy + 16 * PAGE, 0, 16 * PAGE);
	memset(copy + 64 * PAGE, 0, 16 * PAGE);
	SAME(memcmp(at, copy, PIECE), 0);
	free(copy);
}

static void protect(char *at)
{
	for (size_t i = 0; i < PIECE / PAGE; i += 2)
		OK(mprotect(at + i * PAGE, PAGE, i % 4 ? PROT_NONE : PROT_READ));
	OK(mprotect(at, PIECE, PROT_READ | PROT_WRITE));
	filled(at, PIECE, 9);
	at[0]++;
	at[0]--;
}

static void lock(char *at)
{
	if (mlock(at, PIECE) < 0)
		CHECK(errno == ENOMEM || errno == EPERM || errno == EAGAIN);
	filled(at, PIECE, 10);
	munlock(at, PIECE);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	char *pieces[11];
	for (int i = 1; i < 11; i++) {
		char *at = private(PIECE + 2 * PAGE);
		OK(mprotect(at, PAGE, PROT_NONE)); /* so that no two are one mapping */
		OK(mprotect(at + PAGE + PIECE, PAGE, PROT_NONE));
		pieces[i] = at + PAGE;
		fill(pieces[i], PIECE, i);
	}
	char *top = OK(sbrk(PIECE));
	fill(top, PIECE, 11);
	ready_and_hold();
	move_elsewhere(pieces[1]);
	move_over_another(pieces[2], pieces[3]);
	move_in_a_circle(pieces[4], pieces[5]);
	grow_and_shrink(pieces[6]);
	leave_mapped(pieces[7]);
	cut_and_cover(pieces[8]);
	protect(pieces[9]);
	lock(pieces[10]);
	if (OK(sbrk(0)) == top + PIECE) {
		OK(sbrk(-(intptr_t)HALF));
		OK(sbrk(PIECE));
		zeroed(top + HALF, PIECE);
		filled(top, HALF, 11);
	}
	pass();
}
