/* A request that does not come back by itself: a poll for what does not happen. */
#include "selfcheck.h"
#include <linux/aio_abi.h>
#include <poll.h>
#include <sys/eventfd.h>

int main(int argc, char **argv)
{
	aio_context_t context = 0;
	struct io_event event;
	begin(argc, argv);
	int fd = OK(eventfd(0, 0));
	struct iocb request = {.aio_lio_opcode = IOCB_CMD_POLL, .aio_fildes = fd, .aio_buf = POLLIN, .aio_data = 4711};
	struct iocb *requests[] = {&request};
	OK(syscall(SYS_io_setup, 8, &context));
	SAME(OK(syscall(SYS_io_submit, context, 1, requests)), 1);
	ready_and_hold();
	OK(eventfd_write(fd, 1));
	SAME(OK(syscall(SYS_io_getevents, context, 1, 1, &event, NULL)), 1);
	SAME(event.data, 4711);
	pass();
}
