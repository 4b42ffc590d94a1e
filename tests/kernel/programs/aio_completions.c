/* Contexts of asynchronous I/O with completions that nobody has taken yet, wherever they lie in the ring. */
#include "selfcheck.h"
#include <linux/aio_abi.h>

struct ring {
	unsigned id, nr, head, tail, magic, features, more, length;
	struct io_event events[];
};

enum { CONTEXTS = 5 };
static const struct {
	unsigned size, before, waiting;
} kinds[CONTEXTS] = {{64, 0, 5}, {64, 0, 0}, {128, 0, 0}, {8, 0, 0}, {600, 700, 20}};

static aio_context_t contexts[CONTEXTS];
static volatile struct ring *rings[CONTEXTS];
static struct iocb request, *same[64];
static int fd;

static long submit(aio_context_t context, uint64_t data)
{
	struct iocb *one[] = {&request};
	request.aio_data = data;
	return syscall(SYS_io_submit, context, 1, one);
}

static void take(aio_context_t context, uint64_t data)
{
	struct io_event event;
	SAME(OK(syscall(SYS_io_getevents, context, 1, 1, &event, NULL)), 1);
	SAME(event.data, data);
	SAME(event.obj, (uintptr_t)&request);
	SAME(event.res, 1);
}

static void run_on(int processor)
{
	cpu_set_t only;
	CPU_ZERO(&only);
	CPU_SET(processor, &only);
	sched_setaffinity(0, sizeof only, &only); /* not everywhere are there two */
}

int main(int argc, char **argv)
{
	unsigned waiting[CONTEXTS], heads[CONTEXTS], tails[CONTEXTS], places[CONTEXTS];
	char byte;
	begin(argc, argv);
	fd = OK(open("/dev/null", O_WRONLY));
	request = (struct iocb){.aio_lio_opcode = IOCB_CMD_PWRITE, .aio_fildes = fd, .aio_buf = (uintptr_t)&byte, .aio_nbytes = 1};
	for (int i = 0; i < 64; i++)
		same[i] = &request;
	for (int i = 0; i < CONTEXTS; i++) {
		OK(syscall(SYS_io_setup, kinds[i].size, &contexts[i]));
		rings[i] = (void *)contexts[i];
		unsigned before = kinds[i].before, more = kinds[i].waiting;
		if (i == 1) /* round the end */
			before = rings[i]->nr - 3, more = 9;
		if (i == 2) /* more than half of it, and it is round the end too */
			before = rings[i]->nr - 5, more = rings[i]->nr / 2 + 7;
		for (unsigned n = 0; n < before; n++) {
			run_on(n / 3 % 2); /* each processor keeps some places */
			SAME(OK(submit(contexts[i], n)), 1);
			take(contexts[i], n);
		}
		run_on(0);
		for (unsigned n = 0; n < more; n++)
			SAME(OK(submit(contexts[i], 1000 + n)), 1);
		waiting[i] = more;
		if (i == 3) { /* all there is room for */
			while (submit(contexts[i], 1000 + waiting[i]) == 1)
				waiting[i]++;
			SAME(errno, EAGAIN);
			CHECK(waiting[i] > 8);
		}
		heads[i] = rings[i]->head;
		tails[i] = rings[i]->tail;
		places[i] = rings[i]->nr;
	}
	ready_and_hold();
	for (int i = 0; i < CONTEXTS; i++) {
		SAME(rings[i]->nr, places[i]);
		if (i != 2) { /* where little room is left, a live one may have turned */
			SAME(rings[i]->head, heads[i]);
			SAME(rings[i]->tail, tails[i]);
		}
		if (i == 3) {
			FAILS(submit(contexts[i], 1), EAGAIN);
		} else
			SAME(OK(submit(contexts[i], 1000 + waiting[i]++)), 1);
		for (unsigned n = 0; n < waiting[i]; n++)
			take(contexts[i], 1000 + n);
		struct timespec now = {0};
		struct io_event event;
		SAME(OK(syscall(SYS_io_getevents, contexts[i], 0, 1, &event, &now)), 0);
		for (unsigned n = 0; n < 2 * rings[i]->nr; n++) {
			SAME(OK(submit(contexts[i], n)), 1);
			take(contexts[i], n);
		}
		OK(syscall(SYS_io_destroy, contexts[i]));
	}
	pass();
}
