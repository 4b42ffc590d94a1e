/* 64 threads on futexes: a ring that passes tokens on, a mutex, a condition and a barrier, counted everywhere.
 *
 * Works in rounds until the file `stop` is there; writes "rounds passes locked woken" to `result`. */
#include "selfcheck.h"
#include <linux/futex.h>
#include <pthread.h>

enum { THREADS = 64, TOKENS = 5, LAPS = 3 };

static volatile int mailbox[THREADS];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static long passes[THREADS], locked, woken, rounds;
static int generation;
static volatile bool over;

static void futex(volatile int *word, int operation, int value)
{
	if (syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0) < 0 && errno != EAGAIN)
		FAIL("futex: %s", strerror(errno)); /* EINTR must not be seen: no thread has a signal handler */
}

/* Take what is in the mailbox, as many as there are, waiting for at least one. */
static int take(int number)
{
	for (;;) {
		int there = __atomic_load_n(&mailbox[number], __ATOMIC_SEQ_CST);
		if (there && __atomic_compare_exchange_n(&mailbox[number], &there, 0, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			return there;
		if (!there)
			futex(&mailbox[number], FUTEX_WAIT, 0);
	}
}

static void give(int number, int count)
{
	__atomic_add_fetch(&mailbox[number], count, __ATOMIC_SEQ_CST);
	futex(&mailbox[number], FUTEX_WAKE, 1);
}

static void publish_progress(void)
{
	char text[32];
	int fd = OK(open(in_directory("progress.new"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
	int length = snprintf(text, sizeof text, "%ld", rounds);
	SAME(write(fd, text, length), length);
	close(fd);
	OK(rename(in_directory("progress.new"), in_directory("progress")));
}

static void *work(void *argument)
{
	int number = (int)(intptr_t)argument;
	for (;;) {
		/* every token comes by LAPS times; the last thread keeps it after the last lap */
		for (int left = TOKENS * LAPS; left > 0;) {
			int count = take(number);
			left -= count;
			passes[number] += count;
			if (number < THREADS - 1 || left >= TOKENS)
				give((number + 1) % THREADS, count);
			else if (left + count > TOKENS)
				give(0, left + count - TOKENS);
		}
		SAME(pthread_mutex_lock(&mutex), 0);
		locked++;
		int seen = generation;
		if (locked % THREADS == 0) {
			generation++;
			SAME(pthread_cond_broadcast(&condition), 0);
		}
		while (generation == seen)
			SAME(pthread_cond_wait(&condition, &mutex), 0);
		woken++;
		SAME(pthread_mutex_unlock(&mutex), 0);
		int serial = pthread_barrier_wait(&barrier);
		if (serial == PTHREAD_BARRIER_SERIAL_THREAD) {
			rounds++;
			publish_progress();
			over = access(in_directory("stop"), F_OK) == 0;
			if (!over) {
				struct timespec rest = {0, 5000000};
				nanosleep(&rest, NULL);
			}
		}
		pthread_barrier_wait(&barrier);
		if (over)
			return NULL;
		if (number == 0)
			give(0, TOKENS);
	}
}

int main(int argc, char **argv)
{
	pthread_t threads[THREADS];
	begin(argc, argv);
	pthread_barrier_init(&barrier, NULL, THREADS);
	give(0, TOKENS);
	for (intptr_t i = 0; i < THREADS; i++)
		SAME(pthread_create(&threads[i], NULL, work, (void *)i), 0);
	long total = 0;
	for (int i = 0; i < THREADS; i++) {
		SAME(pthread_join(threads[i], NULL), 0);
		total += passes[i];
		SAME(mailbox[i], 0);
	}
	char text[128];
	snprintf(text, sizeof text, "%ld %ld %ld %ld", rounds, total, locked, woken);
	publish("result", text);
	return 0;
}
