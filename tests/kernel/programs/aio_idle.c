/* Contexts of asynchronous I/O with nothing on its way; a thread that waits in io_getevents. */
#include "selfcheck.h"
#include <linux/aio_abi.h>
#include <pthread.h>

static aio_context_t waited_for;
static int fd;

static long submit(aio_context_t context, char *buffer, long offset, uint64_t data)
{
	struct iocb request = {.aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = fd, .aio_data = data};
	struct iocb *requests[] = {&request};
	request.aio_buf = (uintptr_t)buffer;
	request.aio_nbytes = 3;
	request.aio_offset = offset;
	return syscall(SYS_io_submit, context, 1, requests);
}

static void reads(aio_context_t context, long offset, const char *text)
{
	char buffer[4] = "";
	struct io_event event;
	SAME(OK(submit(context, buffer, offset, 4711)), 1);
	SAME(OK(syscall(SYS_io_getevents, context, 1, 1, &event, NULL)), 1);
	SAME(event.data, 4711);
	SAME(event.res, 3);
	CHECK(memcmp(buffer, text, 3) == 0);
}

static void *waits(void *unused)
{
	struct io_event event;
	SAME(OK(syscall(SYS_io_getevents, waited_for, 1, 1, &event, NULL)), 1);
	SAME(event.data, 4712);
	return unused;
}

int main(int argc, char **argv)
{
	enum { CONTEXTS = 4 };
	static const unsigned sizes[CONTEXTS] = {1, 64, 256, 1000};
	aio_context_t contexts[CONTEXTS] = {0};
	char buffer[4];
	pthread_t thread;
	begin(argc, argv);
	fd = OK(open(in_directory("data"), O_RDWR | O_CREAT, 0644));
	SAME(write(fd, "abcdef", 6), 6);
	for (int i = 0; i < CONTEXTS; i++) {
		OK(syscall(SYS_io_setup, sizes[i], &contexts[i]));
		for (int n = 0; n <= i; n++)
			reads(contexts[i], 0, "abc");
	}
	OK(syscall(SYS_io_setup, 8, &waited_for));
	SAME(pthread_create(&thread, NULL, waits, NULL), 0);
	ready_and_hold();
	for (int i = 0; i < CONTEXTS; i++) {
		for (int n = 0; n < 300; n++)
			reads(contexts[i], 3, "def");
		OK(syscall(SYS_io_destroy, contexts[i]));
	}
	SAME(OK(submit(waited_for, buffer, 0, 4712)), 1);
	SAME(pthread_join(thread, NULL), 0);
	pass();
}
