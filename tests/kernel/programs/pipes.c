/* Pipes in one process: contents, sizes, flags, packets, a closed end, an end opened anew through /proc. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	static char data[40000], got[70000];
	int full[2], big[2], packets[2], dead[2], unread[2], reopened[2];
	fill(data, sizeof data, 2);
	OK(pipe2(full, O_NONBLOCK | O_CLOEXEC));
	while (write(full[1], data, 4096) > 0)
		;
	SAME(errno, EAGAIN);
	OK(pipe(big));
	SAME(fcntl(big[0], F_SETPIPE_SZ, 1 << 18), 1 << 18);
	SAME(write(big[1], data, sizeof data), sizeof data);
	OK(pipe2(packets, O_DIRECT));
	SAME(write(packets[1], "one", 3), 3);
	SAME(write(packets[1], "second", 6), 6);
	OK(pipe(dead)); /* no writer any more, but something to read */
	SAME(write(dead[1], "last words", 10), 10);
	close(dead[1]);
	OK(pipe(unread)); /* no reader any more */
	close(unread[0]);
	OK(pipe(reopened));
	char path[64];
	snprintf(path, sizeof path, "/proc/self/fd/%d", reopened[1]);
	int second = OK(open(path, O_WRONLY | O_NONBLOCK));
	SAME(write(second, "through the second", 18), 18);
	signal(SIGPIPE, SIG_IGN);
	ready_and_hold();
	SAME(fcntl(full[0], F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	SAME(fcntl(full[0], F_GETFD), FD_CLOEXEC);
	FAILS(write(full[1], "x", 1), EAGAIN);
	for (int i = 0; i < 16; i++) {
		SAME(read(full[0], got, 4096), 4096);
		CHECK(memcmp(got, data, 4096) == 0);
	}
	FAILS(read(full[0], got, 1), EAGAIN);
	SAME(fcntl(full[0], F_GETPIPE_SZ), 65536);
	SAME(fcntl(big[1], F_GETPIPE_SZ), 1 << 18);
	SAME(read(big[0], got, sizeof got), sizeof data);
	CHECK(memcmp(got, data, sizeof data) == 0);
	CHECK(fcntl(packets[1], F_GETFL) & O_DIRECT);
	SAME(read(packets[0], got, sizeof got), 3);
	SAME(read(packets[0], got, sizeof got), 6);
	CHECK(memcmp(got, "second", 6) == 0);
	SAME(read(dead[0], got, sizeof got), 10);
	SAME(read(dead[0], got, sizeof got), 0);
	FAILS(write(unread[1], "x", 1), EPIPE);
	SAME(fcntl(second, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	SAME(fcntl(reopened[1], F_GETFL) & O_NONBLOCK, 0);
	SAME(read(reopened[0], got, sizeof got), 18);
	close(second);
	close(reopened[1]);
	SAME(read(reopened[0], got, sizeof got), 0);
	pass();
}
