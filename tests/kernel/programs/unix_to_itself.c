/* A Unix datagram socket that is connected to itself, with a message to itself under way. */
#include "selfcheck.h"
#include <sys/socket.h>
#include <sys/un.h>

int main(int argc, char **argv)
{
	begin(argc, argv);
	char bytes[64] = "";
	struct sockaddr_un own = {.sun_family = AF_UNIX}, now;
	CHECK(snprintf(own.sun_path, sizeof own.sun_path, "%s/self", test_directory) < (int)sizeof own.sun_path);
	int fd = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
	OK(bind(fd, (struct sockaddr *)&own, sizeof own));
	OK(connect(fd, (struct sockaddr *)&own, sizeof own));
	SAME(send(fd, "under way", 9, 0), 9);
	ready_and_hold();
	socklen_t size = sizeof now;
	OK(getpeername(fd, (struct sockaddr *)&now, &size));
	CHECK(strcmp(now.sun_path, own.sun_path) == 0);
	SAME(send(fd, "one more", 8, MSG_DONTWAIT), 8);
	SAME(recv(fd, bytes, sizeof bytes, MSG_DONTWAIT), 9);
	CHECK(memcmp(bytes, "under way", 9) == 0);
	SAME(recv(fd, bytes, sizeof bytes, MSG_DONTWAIT), 8);
	CHECK(memcmp(bytes, "one more", 8) == 0);
	pass();
}
