/* Memory that changes all the time: what an image holds is one moment of it, whoever writes the pages when. */
#include "selfcheck.h"
#include <pthread.h>

enum { PAGES = 4096 };
static volatile int over;

/* Before the round counts a page up, it must be one behind; nobody else writes. */
static void *count(void *argument)
{
	volatile uint64_t *memory = argument;
	for (uint64_t round = 1; !over; round++)
		for (size_t page = 0; page < PAGES; page++) {
			volatile uint64_t *word = memory + page * (PAGE / 8) + page % (PAGE / 8);
			if (*word != round - 1)
				FAIL("page %zu has %" PRIu64 " in round %" PRIu64, page, *word, round);
			*word = round;
		}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[2];
	begin(argc, argv);
	for (int i = 0; i < 2; i++)
		SAME(pthread_create(&threads[i], NULL, count, private(PAGES * PAGE)), 0);
	ready_and_hold();
	over = true;
	for (int i = 0; i < 2; i++)
		SAME(pthread_join(threads[i], NULL), 0);
	pass();
}
