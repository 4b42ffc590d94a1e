/* The clear_child_tid address: who joins a thread is woken when it ends. */
#include "selfcheck.h"
#include <pthread.h>

static volatile int stage;
static void *work(void *argument)
{
	set(&stage, 1);
	await(&stage, 2);
	return argument;
}
static void *join(void *argument)
{
	void *value = NULL;
	SAME(pthread_join(*(pthread_t *)argument, &value), 0);
	return value;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	pthread_t thread, joiner;
	void *value = NULL;
	SAME(pthread_create(&thread, NULL, work, (void *)5), 0);
	await(&stage, 1);
	SAME(pthread_create(&joiner, NULL, join, &thread), 0);
	ready_and_hold();
	set(&stage, 2);
	SAME(pthread_join(joiner, &value), 0);
	SAME((intptr_t)value, 5);
	pass();
}
