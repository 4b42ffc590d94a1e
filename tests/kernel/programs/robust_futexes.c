/* The robust list: a lock whose owner dies after the restore says so. */
#include "selfcheck.h"
#include <pthread.h>

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct {
		pthread_mutex_t mutex;
		int stage;
	} *common = shared(PAGE);
	pthread_mutexattr_t attributes;
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	pthread_mutex_init(&common->mutex, &attributes);
	pid_t child = OK(fork());
	if (child == 0) {
		SAME(pthread_mutex_lock(&common->mutex), 0);
		set(&common->stage, 1);
		await(&common->stage, 2);
		_exit(0); /* with the lock held */
	}
	await(&common->stage, 1);
	ready_and_hold();
	SAME(pthread_mutex_trylock(&common->mutex), EBUSY);
	set(&common->stage, 2);
	reap(child);
	SAME(pthread_mutex_lock(&common->mutex), EOWNERDEAD);
	SAME(pthread_mutex_consistent(&common->mutex), 0);
	SAME(pthread_mutex_unlock(&common->mutex), 0);
	pass();
}
