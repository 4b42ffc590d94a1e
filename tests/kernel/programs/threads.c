/* Threads: ids, thread-local storage, names, masks and alternate stacks, each thread its own. */
#include "selfcheck.h"
#include <pthread.h>

enum { THREADS = 8 };
static _Thread_local uint64_t local = 1;
static pthread_barrier_t set_up, go_on;

static void *work(void *argument)
{
	int number = (int)(intptr_t)argument;
	pid_t tid = gettid();
	char name[16], now[16];
	sigset_t mask, mask_now;
	stack_t stack = {.ss_sp = malloc(SIGSTKSZ), .ss_size = SIGSTKSZ}, stack_now;

	local = 0x1000 + number;
	snprintf(name, sizeof name, "worker %d", number);
	pthread_setname_np(pthread_self(), name);
	sigemptyset(&mask);
	sigaddset(&mask, SIGRTMIN + number);
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	OK(sigaltstack(&stack, NULL));
	pthread_barrier_wait(&set_up);
	pthread_barrier_wait(&go_on);
	SAME(gettid(), tid);
	SAME(local, 0x1000 + number);
	pthread_getname_np(pthread_self(), now, sizeof now);
	if (strcmp(now, name) != 0)
		FAIL("the name is %s, not %s", now, name);
	pthread_sigmask(SIG_SETMASK, NULL, &mask_now);
	for (int signal = 1; signal <= SIGRTMAX; signal++)
		if (signal < 32 || signal >= SIGRTMIN)
			SAME(sigismember(&mask_now, signal), sigismember(&mask, signal));
	OK(sigaltstack(NULL, &stack_now));
	CHECK(stack_now.ss_sp == stack.ss_sp && stack_now.ss_size == stack.ss_size && stack_now.ss_flags == 0);
	return (void *)(intptr_t)(number * 3);
}

int main(int argc, char **argv)
{
	pthread_t threads[THREADS];
	begin(argc, argv);
	pthread_barrier_init(&set_up, NULL, THREADS + 1);
	pthread_barrier_init(&go_on, NULL, THREADS + 1);
	for (intptr_t i = 0; i < THREADS; i++)
		SAME(pthread_create(&threads[i], NULL, work, (void *)i), 0);
	pthread_barrier_wait(&set_up);
	ready_and_hold();
	pthread_barrier_wait(&go_on);
	for (intptr_t i = 0; i < THREADS; i++) {
		void *value;
		SAME(pthread_join(threads[i], &value), 0);
		SAME((intptr_t)value, i * 3);
	}
	SAME(local, 1);
	/* New threads can be made, too. */
	pthread_barrier_init(&set_up, NULL, 1);
	pthread_barrier_init(&go_on, NULL, 1);
	SAME(pthread_create(&threads[0], NULL, work, (void *)9), 0);
	SAME(pthread_join(threads[0], NULL), 0);
	pass();
}
