/* A TCP socket that is connected to itself (simultaneous open), with data under way to itself. */
#include "selfcheck.h"
#include <netinet/in.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
	begin(argc, argv);
	char bytes[32] = "";
	struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, now;
	socklen_t size = sizeof own;
	int fd = OK(socket(AF_INET, SOCK_STREAM, 0));
	OK(bind(fd, (struct sockaddr *)&own, size));
	OK(getsockname(fd, (struct sockaddr *)&own, &size));
	OK(connect(fd, (struct sockaddr *)&own, size));
	SAME(send(fd, "under way", 9, 0), 9);
	ready_and_hold();
	OK(getpeername(fd, (struct sockaddr *)&now, &size));
	SAME(now.sin_port, own.sin_port);
	SAME(recv(fd, bytes, 9, MSG_WAITALL), 9);
	CHECK(memcmp(bytes, "under way", 9) == 0);
	SAME(send(fd, "again", 5, 0), 5);
	SAME(recv(fd, bytes, 5, MSG_WAITALL), 5);
	OK(shutdown(fd, SHUT_WR));
	SAME(recv(fd, bytes, 5, 0), 0);
	pass();
}
