/* Mappings that change between checkpoints, while addresses stay in use and pages are where others were. */
#include "phases.h"

enum { SIZE = 64 * PAGE, AREAS = 12 };
static char *area[AREAS];

static void map_anew(int number)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
	OK(munmap(area[number], SIZE));
	SAME(mmap(area[number], SIZE, PROT_READ | PROT_WRITE, flags, -1, 0), area[number]);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	char *all = private((2 * AREAS + 1) * SIZE);
	for (int i = 0; i < AREAS; i++) { /* apart, so that each is a mapping of its own */
		area[i] = all + (2 * i + 1) * SIZE;
		OK(munmap(area[i] - SIZE, SIZE));
		fill(area[i], SIZE, 10 + i);
	}
	OK(munmap(area[AREAS - 1] + SIZE, SIZE));
	OK(madvise(area[8], SIZE, MADV_WIPEONFORK));
	char *guarded = private(8 * PAGE);
	fill(guarded, 8 * PAGE, 60);
	char *heap = sbrk(SIZE);
	fill(heap, SIZE, 50);
	phase_is_over(1);

	map_anew(0); /* other contents at the same place */
	fill(area[0], SIZE, 20);
	map_anew(1); /* nothing at the same place */
	SAME(mremap(area[2], SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, area[3]), area[3]);
	OK(madvise(area[4], SIZE, MADV_DONTNEED));
	OK(madvise(area[5], SIZE, MADV_DONTNEED));
	zeroed(area[5], SIZE);
	fill(area[5], SIZE / 2, 25);
	OK(mprotect(area[6], SIZE, PROT_NONE));
	memset(area[7], 0, SIZE);
	pid_t child = OK(fork());
	if (child == 0) {
		zeroed(area[8], SIZE);
		fill(area[9], SIZE, 99);
		_exit(0);
	}
	reap(child);
	fill(sbrk(SIZE), SIZE, 51);
	for (int i = 3; i < 6; i++) /* a guard in place of a page that is brought only now would not last */
		(void)*(volatile char *)(guarded + i * PAGE);
	bool guards = madvise(guarded + 3 * PAGE, 3 * PAGE, 102) == 0; /* MADV_GUARD_INSTALL, since Linux 6.13 */
	phase_is_over(2);

	OK(mprotect(area[6], SIZE, PROT_READ | PROT_WRITE));
	area[6][PAGE] = 1;
	SAME(mremap(area[9], SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, area[2]), area[2]);
	map_anew(0);
	fill(area[0] + SIZE / 2, SIZE / 2, 30);
	OK(madvise(area[10], SIZE, MADV_PAGEOUT)); /* to the swap, if there is any */
	OK(munmap(area[11], SIZE / 2));
	if (guards) {
		OK(madvise(guarded + 4 * PAGE, 2 * PAGE, 103)); /* MADV_GUARD_REMOVE */
		guarded[5 * PAGE] = 9;
	}
	phase_is_over(3);

	OK(madvise(area[5], SIZE / 4, MADV_DONTNEED));
	map_anew(1);
	ready_and_hold();

	zeroed(area[0], SIZE / 2);
	filled(area[0] + SIZE / 2, SIZE / 2, 30);
	zeroed(area[1], SIZE);
	filled(area[2], SIZE, 19);
	filled(area[3], SIZE, 12);
	zeroed(area[4], SIZE);
	zeroed(area[5], SIZE / 4);
	char *want = private(SIZE);
	fill(want, SIZE / 2, 25);
	CHECK(memcmp(area[5] + SIZE / 4, want + SIZE / 4, SIZE / 4) == 0);
	zeroed(area[5] + SIZE / 2, SIZE / 2);
	SAME(area[6][PAGE], 1);
	fill(want, SIZE, 16);
	want[PAGE] = 1;
	CHECK(memcmp(area[6], want, SIZE) == 0);
	zeroed(area[7], SIZE);
	filled(area[8], SIZE, 18);
	filled(area[10], SIZE, 20);
	fill(want, SIZE, 21);
	CHECK(memcmp(area[11] + SIZE / 2, want + SIZE / 2, SIZE / 2) == 0);
	fill(want, 8 * PAGE, 60);
	CHECK(memcmp(guarded, want, 3 * PAGE) == 0);
	CHECK(memcmp(guarded + 6 * PAGE, want + 6 * PAGE, 2 * PAGE) == 0);
	if (guards) {
		FAILS(access(guarded + 3 * PAGE, F_OK), EFAULT);
		zeroed(guarded + 4 * PAGE, PAGE);
		SAME(guarded[5 * PAGE], 9);
		guarded[5 * PAGE] = 0;
		zeroed(guarded + 5 * PAGE, PAGE);
	}
	filled(heap, SIZE, 50);
	filled(heap + SIZE, SIZE, 51);
	pass();
}
