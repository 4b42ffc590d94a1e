/* Memory that the kernel is the first to touch: in system calls, for signals, and for others that look at a process. */
#include "selfcheck.h"
#include <linux/futex.h>
#include <pthread.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

#define PIECE (1UL << 20)

static char *at;
static volatile sig_atomic_t handled;

static char *page(int number) { return at + number * 64 * PAGE; } /* far enough from each other */

static void expect(int number, const void *got)
{
	char same[PAGE];
	for (size_t i = 0; i < PAGE / 8; i++)
		((uint64_t *)same)[i] = (1 * 0x9e3779b97f4a7c15u) + ((page(number) - at) / 8 + i) * 0xbf58476d1ce4e5b9u + 1;
	SAME(memcmp(got, same, PAGE), 0);
}

static void pipes(void)
{
	int ends[2];
	char got[PAGE];
	OK(pipe2(ends, O_CLOEXEC));
	SAME(write(ends[1], page(0), PAGE), PAGE);
	SAME(read(ends[0], got, PAGE), PAGE);
	expect(0, got);
	SAME(write(ends[1], got, 100), 100);
	SAME(read(ends[0], page(1) + 50, 100), 100);
	SAME(memcmp(page(1) + 50, got, 100), 0);
	close(ends[0]);
	close(ends[1]);
}

static void files(void)
{
	int fd = open(in_directory("direct"), O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
	if (fd < 0) /* not every file system knows it */
		fd = OK(open(in_directory("direct"), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	SAME(pwrite(fd, page(2), PAGE, 0), PAGE);
	SAME(pread(fd, page(3), PAGE, 0), PAGE);
	expect(2, page(3));
	close(fd);
	unlink(in_directory("direct"));
}

static void futexes(void)
{
	uint32_t value;
	memcpy(&value, &(uint64_t){(1 * 0x9e3779b97f4a7c15u) + (page(4) - at) / 8 * 0xbf58476d1ce4e5b9u + 1}, 4);
	struct timespec now = {0, 1};
	FAILS(syscall(SYS_futex, page(4), FUTEX_WAIT, value + 1, NULL, NULL, 0), EAGAIN);
	FAILS(syscall(SYS_futex, page(5), FUTEX_WAIT_PRIVATE, *(uint32_t *)page(5), &now, NULL, 0), ETIMEDOUT);
}

static void handler(int number)
{
	(void)number;
	handled++;
}

static void signals(void)
{
	stack_t stack = {.ss_sp = page(6), .ss_size = 16 * PAGE}, before;
	struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
	OK(sigaltstack(&stack, &before));
	OK(sigaction(SIGUSR2, &action, NULL));
	OK(raise(SIGUSR2));
	SAME(handled, 1);
	OK(sigaltstack(&before, NULL));
}

static void *thread(void *unused) { return unused; }

static void stacks(void)
{
	pthread_t made;
	pthread_attr_t attributes;
	OK(pthread_attr_init(&attributes));
	SAME(pthread_attr_setstack(&attributes, page(7), 32 * PAGE), 0);
	SAME(pthread_create(&made, &attributes, thread, NULL), 0);
	SAME(pthread_join(made, NULL), 0);
}

static void come(pid_t child, void *wanted)
{
	char got[PAGE];
	struct iovec here = {got, PAGE}, there = {wanted, PAGE};
	SAME(process_vm_readv(child, &here, 1, &there, 1, 0), PAGE);
}

static void from_outside(void)
{
	char got[PAGE], path[64];
	struct gate gate;
	gate_make(&gate);
	pid_t child = OK(fork());
	if (child == 0) {
		gate_child_is_set(&gate);
		for (;;)
			pause();
	}
	gate_wait(&gate, 1);
	struct iovec here = {got, PAGE}, there = {page(8), PAGE};
	SAME(process_vm_readv(child, &here, 1, &there, 1, 0), PAGE);
	expect(8, got);
	here.iov_base = page(8);
	there.iov_base = page(9);
	SAME(process_vm_writev(child, &here, 1, &there, 1, 0), PAGE);
	here.iov_base = got;
	SAME(process_vm_readv(child, &here, 1, &there, 1, 0), PAGE);
	expect(8, got);
	expect(9, page(9));
	snprintf(path, sizeof path, "/proc/%d/mem", child);
	int fd = OK(open(path, O_RDONLY | O_CLOEXEC));
	/* these cannot wait for a page: they fail, and find no zeros; once it has come they succeed */
	if (pread(fd, got, PAGE, (off_t)page(10)) < 0) {
		SAME(errno, EIO);
		come(child, page(10));
		SAME(pread(fd, got, PAGE, (off_t)page(10)), PAGE);
	}
	expect(10, got);
	close(fd);
	OK(ptrace(PTRACE_ATTACH, child, NULL, NULL));
	SAME(waitpid(child, NULL, __WALL), child);
	errno = 0;
	if (ptrace(PTRACE_PEEKDATA, child, page(11), NULL) == -1 && errno) {
		SAME(errno, EIO);
		come(child, page(11));
		errno = 0;
	}
	for (size_t i = 0; i < PAGE / sizeof(long); i++)
		((long *)got)[i] = ptrace(PTRACE_PEEKDATA, child, page(11) + i * sizeof(long), NULL);
	SAME(errno, 0);
	expect(11, got);
	OK(kill(child, SIGKILL));
	OK(waitpid(child, NULL, __WALL));
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	at = private(4 * PIECE);
	fill(at, 4 * PIECE, 1);
	ready_and_hold();
	pipes();
	files();
	futexes();
	signals();
	stacks();
	from_outside();
	for (int i = 0; i < 4; i++)
		OK(madvise(at + i * PIECE, PIECE / 4, MADV_POPULATE_READ));
	expect(0, page(0));
	expect(15, page(15));
	pass();
}
