/* epoll: level, edge and one-shot, with data, nested, a descriptor that is closed but open as a duplicate. */
#include "selfcheck.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>

static int wait_for(int epoll, struct epoll_event *events) { return OK(epoll_wait(epoll, events, 16, 0)); }

static void add(int epoll, int fd, uint32_t what, uint64_t data)
{
	struct epoll_event event = {.events = what, .data.u64 = data};
	OK(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
}

static void signal_event(int fd)
{
	uint64_t one = 1;
	SAME(write(fd, &one, 8), 8);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct epoll_event events[16];
	uint64_t value;
	int epoll = OK(epoll_create1(EPOLL_CLOEXEC)), outer = OK(epoll_create1(0)), fd[4];
	for (int i = 0; i < 4; i++)
		fd[i] = OK(eventfd(0, EFD_NONBLOCK));
	add(epoll, fd[0], EPOLLIN, 0x1111111122222222ull);
	add(epoll, fd[1], EPOLLIN | EPOLLET, 0x3333);
	add(epoll, fd[2], EPOLLIN | EPOLLONESHOT, 0x4444);
	add(epoll, fd[3], EPOLLIN | EPOLLET, 0x5555);
	add(outer, epoll, EPOLLIN, 0x6666);
	int ends[2];
	OK(pipe(ends));
	int moved = OK(dup(ends[0]));
	OK(fcntl(moved, F_DUPFD, 100));
	/* one-shot: used up */
	signal_event(fd[2]);
	SAME(wait_for(epoll, events), 1);
	SAME(events[0].data.u64, 0x4444);
	/* edge: told before the hold */
	signal_event(fd[1]);
	SAME(wait_for(epoll, events), 1);
	SAME(events[0].data.u64, 0x3333);
	SAME(wait_for(epoll, events), 0);
	/* level: ready across the hold */
	signal_event(fd[0]);
	ready_and_hold();
	SAME(fcntl(epoll, F_GETFD), FD_CLOEXEC);
	SAME(wait_for(outer, events), 1);
	SAME(events[0].data.u64, 0x6666);
	/* A restored edge-triggered entry may be told once more (its owner must cope), nothing else may. */
	int count = wait_for(epoll, events), level = 0;
	for (int i = 0; i < count; i++) {
		level += events[i].data.u64 == 0x1111111122222222ull;
		CHECK(events[i].data.u64 == 0x1111111122222222ull || events[i].data.u64 == 0x3333);
	}
	SAME(level, 1);
	SAME(wait_for(epoll, events), 1);
	SAME(read(fd[0], &value, 8), 8);
	SAME(wait_for(epoll, events), 0);
	/* edges come */
	signal_event(fd[3]);
	SAME(wait_for(epoll, events), 1);
	SAME(events[0].data.u64, 0x5555);
	SAME(wait_for(epoll, events), 0);
	signal_event(fd[3]);
	SAME(wait_for(epoll, events), 1);
	/* one-shot can be armed again, and is known */
	struct epoll_event again = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 0x7777};
	FAILS(epoll_ctl(epoll, EPOLL_CTL_ADD, fd[2], &again), EEXIST);
	OK(epoll_ctl(epoll, EPOLL_CTL_MOD, fd[2], &again));
	SAME(wait_for(epoll, events), 1);
	SAME(events[0].data.u64, 0x7777);
	pass();
}
