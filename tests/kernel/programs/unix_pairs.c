/* Socket pairs: stream, datagram and packet, with data on the way both ways, shut down ends, options. */
#include "selfcheck.h"
#include <sys/socket.h>

static void talk(int type)
{
	int pair[2];
	static char big[30000], got[70000];
	fill(big, sizeof big, type);
	OK(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, pair));
	int size = 60000, now = 0, on = 1;
	OK(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size));
	OK(setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
	socklen_t length = sizeof size;
	OK(getsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, &length));
	SAME(send(pair[0], "one", 3, 0), 3);
	SAME(send(pair[0], big, sizeof big, 0), sizeof big);
	if (type != SOCK_STREAM)
		SAME(send(pair[0], "", 0, 0), 0);
	SAME(send(pair[0], "three", 5, 0), 5);
	SAME(send(pair[1], "back", 4, 0), 4);
	pid_t child = OK(fork());
	if (child == 0) {
		hold();
		ssize_t total = 0, one;
		if (type == SOCK_STREAM) {
			while (total < 3 + (ssize_t)sizeof big + 5)
				total += OK(recv(pair[1], got + total, sizeof got - total, 0));
			CHECK(memcmp(got, "one", 3) == 0 && memcmp(got + 3, big, sizeof big) == 0);
			CHECK(memcmp(got + 3 + sizeof big, "three", 5) == 0);
		} else {
			SAME(recv(pair[1], got, sizeof got, 0), 3);
			one = OK(recv(pair[1], got, sizeof got, 0));
			SAME(one, sizeof big);
			CHECK(memcmp(got, big, sizeof big) == 0);
			SAME(recv(pair[1], got, sizeof got, 0), 0);
			SAME(recv(pair[1], got, sizeof got, 0), 5);
		}
		FAILS(recv(pair[1], got, sizeof got, MSG_DONTWAIT), EAGAIN);
		SAME(send(pair[1], "done", 4, 0), 4);
		_exit(0);
	}
	ready_and_hold();
	length = sizeof now;
	OK(getsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &now, &length));
	SAME(now, size);
	OK(getsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &now, &length));
	SAME(now, 1);
	OK(getsockopt(pair[0], SOL_SOCKET, SO_TYPE, &now, &length));
	SAME(now, type);
	SAME(fcntl(pair[0], F_GETFD), FD_CLOEXEC);
	reap(child);
	SAME(recv(pair[0], got, type == SOCK_STREAM ? 4 : sizeof got, 0), 4);
	CHECK(memcmp(got, "back", 4) == 0);
	SAME(recv(pair[0], got, sizeof got, 0), 4);
	CHECK(memcmp(got, "done", 4) == 0);
	close(pair[1]);
	if (type != SOCK_DGRAM)
		SAME(recv(pair[0], got, sizeof got, 0), 0);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	const char *type = argc > 2 ? argv[2] : "stream";
	talk(strcmp(type, "stream") == 0 ? SOCK_STREAM : strcmp(type, "dgram") == 0 ? SOCK_DGRAM : SOCK_SEQPACKET);
	pass();
}
