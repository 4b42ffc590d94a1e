/* Socket pairs that are shut down or whose other end is gone, with data left to read. */
#include "selfcheck.h"
#include <sys/socket.h>

int main(int argc, char **argv)
{
	begin(argc, argv);
	int down[2], gone[2];
	char bytes[32];
	OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, down));
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, gone));
	SAME(write(down[0], "before", 6), 6);
	OK(shutdown(down[0], SHUT_WR));
	SAME(write(gone[0], "heritage", 8), 8);
	close(gone[0]);
	ready_and_hold();
	SAME(read(down[1], bytes, sizeof bytes), 6);
	SAME(read(down[1], bytes, sizeof bytes), 0);
	SAME(send(down[1], "still", 5, MSG_NOSIGNAL), 5);
	SAME(read(down[0], bytes, sizeof bytes), 5);
	FAILS(send(down[0], "x", 1, MSG_NOSIGNAL), EPIPE);
	FAILS(read(down[0], bytes, 1), EAGAIN);
	SAME(read(gone[1], bytes, sizeof bytes), 8);
	CHECK(memcmp(bytes, "heritage", 8) == 0);
	SAME(read(gone[1], bytes, sizeof bytes), 0);
	FAILS(send(gone[1], "x", 1, MSG_NOSIGNAL), EPIPE);
	pass();
}
