/* As many descriptors as there may be, of all sorts, in one process or several, some of them inherited.
 *
 * argv[2] is how many each process has; what is not positive counts from the hard limit of open files.
 * argv[3] is how many processes there are. */
#include "selfcheck.h"
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>

enum { FIRST = 3, COMMON = 24, LINE = 16 };

static int most;

static bool closes_on_exec(int fd) { return fd % 3 == 0; }

/* Put what was opened at the next number, and let it be closed on exec or not. */
static void place(int from, int to)
{
	int flags = closes_on_exec(to) ? O_CLOEXEC : 0;
	if (from != to) {
		SAME(dup3(from, to, flags), to);
		close(from);
	} else
		OK(fcntl(to, F_SETFD, flags ? FD_CLOEXEC : 0));
}

/* From a number on there are a pipe, a pair of sockets, a file and an event counter; each holds its number. */
static void set_up(int from, int to)
{
	const char *path = in_directory("numbers");
	for (int fd = from; fd + 6 <= to; fd += 6) {
		int ends[2];
		OK(pipe(ends));
		SAME(write(ends[1], &fd, sizeof fd), sizeof fd);
		CHECK(ends[0] >= fd);
		place(ends[0], fd);
		place(ends[1], fd + 1);
		OK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
		SAME(write(ends[0], &fd, sizeof fd), sizeof fd);
		place(ends[0], fd + 2);
		place(ends[1], fd + 3);
		place(OK(open(path, O_RDONLY)), fd + 4);
		SAME(lseek(fd + 4, fd, SEEK_SET), fd);
		place(OK(eventfd(fd, EFD_NONBLOCK)), fd + 5);
	}
}

static void verify(int from, int to)
{
	for (int fd = from; fd + 6 <= to; fd += 6) {
		int got = 0;
		uint64_t count = 0;
		for (int one = fd; one < fd + 6; one++)
			SAME(fcntl(one, F_GETFD), closes_on_exec(one) ? FD_CLOEXEC : 0);
		SAME(read(fd, &got, sizeof got), sizeof got);
		SAME(got, fd);
		SAME(write(fd + 1, &fd, sizeof fd), sizeof fd);
		SAME(read(fd + 3, &got, sizeof got), sizeof got);
		SAME(got, fd);
		SAME(write(fd + 3, &fd, sizeof fd), sizeof fd);
		SAME(read(fd + 2, &got, sizeof got), sizeof got);
		SAME(lseek(fd + 4, 0, SEEK_CUR), fd);
		SAME(read(fd + 5, &count, sizeof count), sizeof count);
		SAME(count, fd);
		FAILS(read(fd + 5, &count, sizeof count), EAGAIN);
	}
}

/* Nothing but what belongs here is open. */
static void verify_rest(void)
{
	struct rlimit limit;
	int end = most - (most - FIRST) % 6;
	OK(getrlimit(RLIMIT_NOFILE, &limit));
	for (int fd = end; fd < (int)limit.rlim_cur; fd++)
		FAILS(fcntl(fd, F_GETFD), EBADF);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct rlimit limit;
	OK(getrlimit(RLIMIT_NOFILE, &limit));
	limit.rlim_cur = limit.rlim_max;
	OK(setrlimit(RLIMIT_NOFILE, &limit));
	most = argc > 2 ? atoi(argv[2]) : 0;
	if (most <= 0)
		most += (int)limit.rlim_max;
	int processes = argc > 3 ? atoi(argv[3]) : 1;
	int common = FIRST + COMMON;
	int file = OK(open(in_directory("numbers"), O_RDWR | O_CREAT, 0600));
	OK(ftruncate(file, limit.rlim_max));
	close(file);
	volatile int *stage = shared(PAGE);
	OK(close_range(FIRST, ~0U, 0));
	set_up(FIRST, common);
	pid_t child[processes];
	for (int i = 1; i < processes; i++) {
		child[i] = OK(fork());
		if (child[i] == 0) {
			set_up(common, most);
			set(stage + i, 1);
			hold();
			verify(common, most);
			verify_rest();
			for (int fd = FIRST; fd < common; fd++)
				SAME(fcntl(fd, F_GETFD), closes_on_exec(fd) ? FD_CLOEXEC : 0);
			_exit(0);
		}
	}
	set_up(common, most);
	for (int i = 1; i < processes; i++)
		await(stage + i, 1);
	ready_and_hold();
	verify(FIRST, most);
	verify_rest();
	for (int i = 1; i < processes; i++)
		reap(child[i]);
	pass();
}
