/* Works in rounds in several threads and notes in a shared page how far each is, and the first thing that is wrong.
 *
 * Not of the ready-and-result kind: it runs until it is killed. argv[1] is the file of the page.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 4, STACK = 64 * 1024 };

struct page {
	volatile int64_t rounds[THREADS];
	volatile int64_t signals;
	volatile int64_t wrong_line;
	volatile int64_t wrong_value;
};

static struct page *page;
static char altstacks[THREADS][STACK];
static sigset_t masks[THREADS];
static int nobody_writes[2];

#define MUST(condition, value)                                                                                        \
	do {                                                                                                          \
		if (!(condition) && !page->wrong_line) {                                                              \
			page->wrong_value = (int64_t)(value);                                                         \
			page->wrong_line = __LINE__;                                                                  \
		}                                                                                                     \
	} while (0)

static void on_usr1(int signo, siginfo_t *info, void *context)
{
	(void)info;
	(void)context;
	char here;
	MUST(signo == SIGUSR1, signo);
	MUST(&here >= altstacks[0] && &here < altstacks[0] + STACK, &here);
	page->signals++;
}

/* Integers, floating point and vectors in registers, over and over; the sums are known. */
__attribute__((noinline)) static void compute(void)
{
	uint64_t sum = 0, product = 1;
	double root = 0;
	for (uint64_t i = 1; i <= 5000; i++) {
		sum += i * i;
		product = product * 6364136223846793005u + i;
		root += sqrt((double)(i * i));
	}
	MUST(sum == 41679167500u, sum);
	MUST(root == 12502500.0, root);
	static uint64_t known;
	if (!known)
		known = product;
	MUST(product == known, product);
}

static void check_setting(int which)
{
	sigset_t mask;
	stack_t stack;
	memset(&mask, 0, sizeof mask);
	MUST(pthread_sigmask(SIG_BLOCK, NULL, &mask) == 0, errno);
	for (int signo = 1; signo < 65; signo++)
		MUST(sigismember(&mask, signo) == sigismember(&masks[which], signo), signo);
	MUST(sigaltstack(NULL, &stack) == 0, errno);
	MUST(stack.ss_sp == altstacks[which], stack.ss_sp);
	MUST(stack.ss_size == STACK && stack.ss_flags == 0, stack.ss_flags);
}

static void set_up(int which)
{
	stack_t stack = {.ss_sp = altstacks[which], .ss_size = STACK};
	sigset_t mask;
	sigemptyset(&mask);
	if (which)
		sigaddset(&mask, SIGUSR1);
	sigaddset(&mask, SIGRTMIN + 3 + which);
	MUST(sigaltstack(&stack, NULL) == 0, errno);
	MUST(pthread_sigmask(SIG_SETMASK, &mask, NULL) == 0, errno);
	pthread_sigmask(SIG_BLOCK, NULL, &masks[which]);
}

static void *work(void *argument)
{
	int which = (int)(intptr_t)argument;
	set_up(which);
	for (;;) {
		struct timespec moment = {0, 300 * 1000};
		char byte;
		switch (which) {
		case 1:
			compute();
			MUST(nanosleep(&moment, NULL) == 0, errno); /* two cores, and others want them */
			break;
		case 2:
			MUST(nanosleep(&moment, NULL) == 0, errno);
			break;
		case 3:
			/* blocks for good: no signal is for this thread, so it must never come back */
			page->rounds[3] = 1;
			MUST(read(nobody_writes[0], &byte, 1) == 1, errno);
			MUST(0, errno);
			break;
		}
		check_setting(which);
		page->rounds[which]++;
	}
	return NULL;
}

int main(int argc, char **argv)
{
	int fd = argc == 2 ? open(argv[1], O_RDWR | O_CLOEXEC) : -1;
	page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED || pipe(nobody_writes) != 0)
		return 2;
	/* as much of its own as makes a checkpoint have copy-on-write replicas */
	char *much = mmap(NULL, 16 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (much == MAP_FAILED)
		return 2;
	memset(much, 1, 16 << 20);
	struct sigaction action = {.sa_sigaction = on_usr1, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
	sigaction(SIGUSR1, &action, NULL);
	set_up(0);
	for (intptr_t i = 1; i < THREADS; i++) {
		pthread_t thread;
		if (pthread_create(&thread, NULL, work, (void *)i) != 0)
			return 3;
	}
	for (;;) {
		compute();
		struct timespec moment = {0, 300 * 1000};
		MUST(nanosleep(&moment, NULL) == 0 || errno == EINTR, errno);
		check_setting(0);
		page->rounds[0]++;
	}
}
