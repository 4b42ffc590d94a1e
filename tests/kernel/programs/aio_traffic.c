/* Asynchronous I/O that never stands still: requests are on their way whenever anybody looks. None is lost or comes twice. */
#include "selfcheck.h"
#include <linux/aio_abi.h>
#include <pthread.h>

enum { REQUESTS = 64, BLOCKS = 256, BLOCK = 4096 };

static aio_context_t context;
static struct iocb requests[REQUESTS];
static bool busy[REQUESTS];
static char *buffers;
static uint64_t submitted;
static int fd, flying, stop;

static void submit(int i)
{
	struct iocb *one[] = {&requests[i]};
	uint64_t number = ++submitted;
	requests[i] = (struct iocb){
		.aio_data = number,
		.aio_lio_opcode = number % 7 ? IOCB_CMD_PREAD : IOCB_CMD_FDSYNC,
		.aio_fildes = fd,
	};
	if (requests[i].aio_lio_opcode == IOCB_CMD_PREAD) {
		requests[i].aio_buf = (uintptr_t)buffers + i * BLOCK;
		requests[i].aio_nbytes = BLOCK;
		requests[i].aio_offset = number * 31 % BLOCKS * BLOCK;
	}
	SAME(OK(syscall(SYS_io_submit, context, 1, one)), 1);
	busy[i] = true;
	flying++;
}

static void taken(const struct io_event *event)
{
	int i = (struct iocb *)event->obj - requests;
	CHECK(i >= 0 && i < REQUESTS && busy[i]);
	SAME(event->data, requests[i].aio_data);
	if (requests[i].aio_lio_opcode == IOCB_CMD_PREAD) {
		SAME(event->res, BLOCK);
		filled(buffers + i * BLOCK, BLOCK, requests[i].aio_offset / BLOCK);
	} else
		SAME(event->res, 0);
	busy[i] = false;
	flying--;
}

static void *traffic(void *unused)
{
	struct io_event events[REQUESTS];
	while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST) || flying) {
		for (int i = 0; i < REQUESTS && !__atomic_load_n(&stop, __ATOMIC_SEQ_CST); i++)
			if (!busy[i])
				submit(i);
		struct timespec at_most = {.tv_sec = 10};
		long got = syscall(SYS_io_getevents, context, 1, REQUESTS / 4, events, &at_most);
		if (got < 0 && errno == EINTR)
			continue;
		if (OK(got) == 0)
			FAIL("%d requests never come back", flying);
		for (int n = 0; n < got; n++)
			taken(&events[n]);
	}
	return unused;
}

int main(int argc, char **argv)
{
	pthread_t thread;
	begin(argc, argv);
	/* Not in the directory itself, which is put back while this goes on. */
	int flags = O_RDWR | O_CREAT;
	fd = open(in_directory("../traffic"), flags | O_DIRECT, 0644);
	if (fd < 0)
		fd = OK(open(in_directory("../traffic"), flags, 0644)); /* less is on its way, and it is no less right */
	SAME(posix_memalign((void **)&buffers, BLOCK, REQUESTS * BLOCK), 0);
	for (int i = 0; i < BLOCKS; i++) {
		fill(buffers, BLOCK, i);
		SAME(pwrite(fd, buffers, BLOCK, i * BLOCK), BLOCK);
	}
	OK(syscall(SYS_io_setup, REQUESTS, &context));
	SAME(pthread_create(&thread, NULL, traffic, NULL), 0);
	ready_and_hold();
	__atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
	SAME(pthread_join(thread, NULL), 0);
	pass();
}
