/* An epoll used by two processes after a fork. */
#include "selfcheck.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = 42}, got;
	volatile int *stage = shared(PAGE);
	uint64_t one = 1;
	int epoll = OK(epoll_create1(0)), fd = OK(eventfd(0, 0)), late = OK(eventfd(1, 0));
	OK(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
	pid_t child = OK(fork());
	if (child == 0) {
		set(stage, 1);
		SAME(OK(epoll_wait(epoll, &got, 1, -1)), 1);
		SAME(got.data.u64, 42);
		SAME(read(fd, &one, 8), 8);
		event.data.u64 = 43;
		OK(epoll_ctl(epoll, EPOLL_CTL_ADD, late, &event));
		_exit(0);
	}
	await(stage, 1);
	ready_and_hold();
	SAME(write(fd, &one, 8), 8);
	reap(child);
	SAME(OK(epoll_wait(epoll, &got, 1, 0)), 1);
	SAME(got.data.u64, 43);
	pass();
}
