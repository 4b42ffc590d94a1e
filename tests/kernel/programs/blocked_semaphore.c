/* A process blocked on a semaphore and one on a condition, both in memory shared by fork. */
#include "selfcheck.h"
#include <pthread.h>
#include <semaphore.h>

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct {
		sem_t semaphore;
		pthread_mutex_t mutex;
		pthread_cond_t condition;
		int open;
	} *common = shared(PAGE);
	pthread_mutexattr_t mutex;
	pthread_condattr_t condition;
	pthread_mutexattr_init(&mutex);
	pthread_condattr_init(&condition);
	pthread_mutexattr_setpshared(&mutex, PTHREAD_PROCESS_SHARED);
	pthread_condattr_setpshared(&condition, PTHREAD_PROCESS_SHARED);
	pthread_mutex_init(&common->mutex, &mutex);
	pthread_cond_init(&common->condition, &condition);
	OK(sem_init(&common->semaphore, 1, 0));
	pid_t first = OK(fork());
	if (first == 0) {
		OK(sem_wait(&common->semaphore));
		_exit(0);
	}
	pid_t second = OK(fork());
	if (second == 0) {
		SAME(pthread_mutex_lock(&common->mutex), 0);
		while (!common->open)
			SAME(pthread_cond_wait(&common->condition, &common->mutex), 0);
		SAME(pthread_mutex_unlock(&common->mutex), 0);
		_exit(0);
	}
	await_blocked_in(first, first, SYS_futex, -2);
	await_blocked_in(second, second, SYS_futex, -2);
	ready_and_hold();
	OK(sem_post(&common->semaphore));
	reap(first);
	SAME(pthread_mutex_lock(&common->mutex), 0);
	common->open = 1;
	SAME(pthread_cond_signal(&common->condition), 0);
	SAME(pthread_mutex_unlock(&common->mutex), 0);
	reap(second);
	pass();
}
