/* Threads that all touch the same memory for the first time, while others move, unmap and give back some of theirs. */
#include "selfcheck.h"
#include <pthread.h>

#define PIECE (1UL << 20)
#define BLOCKS 64
#define BLOCK (PIECE / BLOCKS)

static char *common;
static char *blocks[4];
static pthread_barrier_t start;

static void *look(void *which)
{
	size_t step = (size_t)which * 2 + 1;
	pthread_barrier_wait(&start);
	char *same = malloc(PIECE);
	fill(same, PIECE, 1);
	for (size_t i = 0; i < PIECE / PAGE; i++) {
		size_t page = i * step % (PIECE / PAGE);
		SAME(memcmp(common + page * PAGE, same + page * PAGE, PAGE), 0);
	}
	free(same);
	return NULL;
}

/* As realloc(3) of large blocks does: the kernel chooses where they go, also to where another thread's were. */
static void *move(void *which)
{
	int mine = (int)(size_t)which;
	char *now[BLOCKS], *same = malloc(PIECE);
	fill(same, PIECE, 10 + mine);
	for (int i = 0; i < BLOCKS; i++)
		now[i] = blocks[mine] + i * BLOCK;
	pthread_barrier_wait(&start);
	for (int i = 0; i < BLOCKS; i++)
		switch (i % 4) {
		case 0:
			OK(munmap(now[i], BLOCK));
			now[i] = NULL;
			break;
		case 1:
			OK(madvise(now[i], BLOCK, MADV_DONTNEED));
			zeroed(now[i], BLOCK);
			break;
		default:
			now[i] = OK(mremap(now[i], BLOCK, 2 * BLOCK, MREMAP_MAYMOVE));
			break;
		}
	for (int i = 0; i < BLOCKS; i++)
		if (i % 4 > 1) {
			SAME(memcmp(now[i], same + i * BLOCK, BLOCK), 0);
			zeroed(now[i] + BLOCK, BLOCK);
		}
	return NULL;
}

static void *beget(void *unused)
{
	(void)unused;
	pthread_barrier_wait(&start);
	for (int i = 0; i < 8; i++) {
		pid_t child = OK(fork());
		if (child == 0) {
			filled(common, PIECE, 1);
			_exit(0);
		}
		reap(child);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	common = private(PIECE);
	fill(common, PIECE, 1);
	for (int i = 0; i < 4; i++) {
		blocks[i] = private(PIECE);
		fill(blocks[i], PIECE, 10 + i);
	}
	pthread_t threads[9];
	OK(pthread_barrier_init(&start, NULL, 9));
	ready_and_hold();
	for (size_t i = 0; i < 9; i++)
		SAME(pthread_create(&threads[i], NULL, i < 4 ? look : i < 8 ? move : beget, (void *)(i % 4)), 0);
	for (int i = 0; i < 9; i++)
		SAME(pthread_join(threads[i], NULL), 0);
	pass();
}
