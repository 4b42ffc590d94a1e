/* eventfd: counters, semaphores, flags, shared by two processes. */
#include "selfcheck.h"
#include <sys/eventfd.h>

int main(int argc, char **argv)
{
	begin(argc, argv);
	uint64_t value = 0xfffffffffff0ull;
	volatile int *stage = shared(PAGE);
	int counter = OK(eventfd(7, EFD_NONBLOCK)), semaphore = OK(eventfd(3, EFD_SEMAPHORE | EFD_CLOEXEC | EFD_NONBLOCK));
	int empty = OK(eventfd(0, 0));
	SAME(write(counter, &value, 8), 8);
	pid_t child = OK(fork());
	if (child == 0) {
		set(stage, 1);
		SAME(read(empty, &value, 8), 8); /* blocked while it is saved */
		SAME(value, 21);
		_exit(0);
	}
	await(stage, 1);
	ready_and_hold();
	SAME(read(counter, &value, 8), 8);
	SAME(value, 0xfffffffffff7ull);
	FAILS(read(counter, &value, 8), EAGAIN);
	for (int i = 0; i < 3; i++) {
		SAME(read(semaphore, &value, 8), 8);
		SAME(value, 1);
	}
	FAILS(read(semaphore, &value, 8), EAGAIN);
	SAME(fcntl(semaphore, F_GETFD), FD_CLOEXEC);
	SAME(fcntl(empty, F_GETFL) & O_NONBLOCK, 0);
	value = 21;
	SAME(write(empty, &value, 8), 8);
	reap(child);
	pass();
}
