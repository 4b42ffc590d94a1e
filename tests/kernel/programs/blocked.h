/* Threads that are blocked in a system call while the job is saved; the call must not show it. */
#ifndef BLOCKED_H
#define BLOCKED_H
#include "selfcheck.h"
#include <pthread.h>

MAYBE volatile int blocked_tid;

struct blocked_body {
	void (*body)(void);
};
MAYBE void *blocked_thread(void *argument)
{
	set(&blocked_tid, gettid());
	((struct blocked_body *)argument)->body();
	return NULL;
}

/* Run `body` in a thread, hold while it is blocked in `call`, then `wake` it and wait for it to return. */
MAYBE void hold_while_blocked(void (*body)(void), long call, long other, void (*wake)(void))
{
	pthread_t thread;
	struct blocked_body argument = {body};
	SAME(pthread_create(&thread, NULL, blocked_thread, &argument), 0);
	while (!blocked_tid)
		sched_yield();
	await_blocked_in(getpid(), blocked_tid, call, other);
	ready_and_hold();
	if (wake)
		wake();
	SAME(pthread_join(thread, NULL), 0);
	pass();
}
#endif
