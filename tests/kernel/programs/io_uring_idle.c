/* Rings of io_uring with nothing on its way: counters, completions not taken, requests not submitted, memory. */
#include "selfcheck.h"
#include <linux/io_uring.h>

#ifndef IORING_SETUP_NO_SQARRAY
#define IORING_SETUP_NO_SQARRAY (1U << 16)
#endif

struct ring {
	int fd;
	bool array;
	struct io_uring_params of;
	char *rings;
	struct io_uring_sqe *requests;
	unsigned tail, head; /* as a library keeps them */
};

static unsigned *at(struct ring *ring, unsigned offset) { return (unsigned *)(ring->rings + offset); }

static void make(struct ring *ring, unsigned entries, unsigned completions, bool array)
{
	*ring = (struct ring){.array = array};
	ring->of.flags = (completions ? IORING_SETUP_CQSIZE : 0) | (array ? 0 : IORING_SETUP_NO_SQARRAY);
	ring->of.cq_entries = completions;
	ring->fd = OK(syscall(SYS_io_uring_setup, entries, &ring->of));
	size_t size = ring->of.cq_off.cqes + ring->of.cq_entries * sizeof(struct io_uring_cqe) + (array ? 4 * ring->of.sq_entries : 0);
	ring->rings = OK(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd, IORING_OFF_SQ_RING));
	ring->requests = OK(mmap(NULL, ring->of.sq_entries * sizeof *ring->requests, PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_POPULATE, ring->fd, IORING_OFF_SQES));
	if (array)
		for (unsigned i = 0; i < ring->of.sq_entries; i++)
			at(ring, ring->of.sq_off.array)[i] = i;
}

static void prepare(struct ring *ring, int fd, void *buffer, uint64_t data)
{
	ring->requests[ring->tail & (ring->of.sq_entries - 1)] = (struct io_uring_sqe){
		.opcode = fd < 0 ? IORING_OP_NOP : IORING_OP_READ, .fd = fd, .addr = (uintptr_t)buffer, .len = fd < 0 ? 0 : 3,
		.user_data = data,
		.flags = fd >= 0 && data % 300 == 12 ? IOSQE_ASYNC : 0}; /* by a thread of the kernel, which lingers */
	ring->tail++;
	__atomic_store_n(at(ring, ring->of.sq_off.tail), ring->tail, __ATOMIC_RELEASE);
}

static void submit(struct ring *ring, int count) { SAME(OK(syscall(SYS_io_uring_enter, ring->fd, count, count, IORING_ENTER_GETEVENTS, NULL, 0)), count); }

static void take(struct ring *ring, uint64_t data, int result)
{
	CHECK(ring->head != __atomic_load_n(at(ring, ring->of.cq_off.tail), __ATOMIC_ACQUIRE));
	struct io_uring_cqe *done = (void *)(ring->rings + ring->of.cq_off.cqes);
	done += ring->head & (ring->of.cq_entries - 1);
	SAME(done->user_data, data);
	SAME(done->res, result);
	ring->head++;
	__atomic_store_n(at(ring, ring->of.cq_off.head), ring->head, __ATOMIC_RELEASE);
}

int main(int argc, char **argv)
{
	enum { RINGS = 3 };
	static struct ring rings[RINGS];
	char text[4] = "";
	begin(argc, argv);
	int fd = OK(open(in_directory("data"), O_RDWR | O_CREAT, 0644));
	SAME(write(fd, "abc", 3), 3);
	make(&rings[0], 8, 0, true);
	make(&rings[1], 8, 64, false);
	make(&rings[2], 256, 0, true);
	for (int i = 0; i < RINGS; i++) {
		for (int n = 0; n < 1000 * i + 13; n++) {
			prepare(&rings[i], fd, text, n);
			submit(&rings[i], 1);
			take(&rings[i], n, 3);
		}
		prepare(&rings[i], -1, NULL, 5001); /* done, and not taken */
		prepare(&rings[i], -1, NULL, 5002);
		submit(&rings[i], 2);
		prepare(&rings[i], -1, NULL, 5003); /* not submitted */
	}
	ready_and_hold();
	for (int i = 0; i < RINGS; i++) {
		take(&rings[i], 5001, 0);
		take(&rings[i], 5002, 0);
		SAME(*at(&rings[i], rings[i].of.cq_off.tail), rings[i].head);
		submit(&rings[i], 1);
		take(&rings[i], 5003, 0);
		for (int n = 0; n < 1000; n++) {
			memset(text, 0, sizeof text);
			prepare(&rings[i], fd, text, n);
			submit(&rings[i], 1);
			take(&rings[i], n, 3);
			CHECK(memcmp(text, "abc", 3) == 0);
		}
	}
	pass();
}
