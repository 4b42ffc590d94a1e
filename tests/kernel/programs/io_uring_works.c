/* A ring of io_uring with a request that a thread of the kernel works on. It cannot be saved, and must not be harmed. */
#include "selfcheck.h"
#include <linux/io_uring.h>

int main(int argc, char **argv)
{
	struct io_uring_params parameters = {0};
	int pipes[2];
	char byte = 0;
	begin(argc, argv);
	bool polls = argc > 2 && strcmp(argv[2], "polls") == 0, closed = argc > 2 && strcmp(argv[2], "closed") == 0;
	if (polls)
		parameters = (struct io_uring_params){.flags = IORING_SETUP_SQPOLL, .sq_thread_idle = 1};
	int ring = OK(syscall(SYS_io_uring_setup, 8, &parameters));
	size_t size = parameters.cq_off.cqes + parameters.cq_entries * sizeof(struct io_uring_cqe);
	char *rings = OK(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING));
	struct io_uring_sqe *request =
		OK(mmap(NULL, parameters.sq_entries * sizeof *request, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES));
	OK(pipe(pipes));
	*request = (struct io_uring_sqe){.opcode = IORING_OP_READ, .fd = pipes[0], .addr = (uintptr_t)&byte, .len = 1,
					 .flags = IOSQE_ASYNC, .user_data = 4711};
	*(unsigned *)(rings + parameters.sq_off.array) = 0;
	__atomic_store_n((unsigned *)(rings + parameters.sq_off.tail), 1, __ATOMIC_RELEASE);
	OK(syscall(SYS_io_uring_enter, ring, 1, 0, polls ? IORING_ENTER_SQ_WAKEUP : 0, NULL, 0));
	if (closed)
		close(ring);
	ready_and_hold();
	if (!closed) { /* else the request has gone with the last descriptor */
		SAME(write(pipes[1], "x", 1), 1);
		await((volatile int *)(rings + parameters.cq_off.tail), 1);
		struct io_uring_cqe *done = (void *)(rings + parameters.cq_off.cqes);
		SAME(done->user_data, 4711);
		SAME(done->res, 1);
		SAME(byte, 'x');
	}
	pass();
}
