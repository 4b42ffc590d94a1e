/* Two sockets of somebody else's at one port, one of which has switched off since what let them share it. */
#include "selfcheck.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

static int option(int fd, int number)
{
	int value = -1;
	socklen_t size = sizeof value;
	OK(getsockopt(fd, SOL_SOCKET, number, &value, &size));
	return value;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	CHECK(argc > 2);
	int style = strncmp(argv[2], "tcp", 3) == 0 ? SOCK_STREAM : SOCK_DGRAM, on = 1, off = 0;
	int sharing = strcmp(argv[2], "udp") == 0 ? SO_REUSEADDR : SO_REUSEPORT;
	bool keep = strcmp(argv[2], "tcpboth") == 0;
	struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, now;
	socklen_t size = sizeof here;
	int fds[2];
	for (int i = 0; i < 2; i++) {
		fds[i] = OK(socket(AF_INET, style, 0));
		OK(fchown(fds[i], 1234, 1234));
		OK(setsockopt(fds[i], SOL_SOCKET, sharing, &on, sizeof on));
		OK(bind(fds[i], (struct sockaddr *)&here, sizeof here));
		if (style == SOCK_STREAM)
			OK(listen(fds[i], 5));
		OK(getsockname(fds[i], (struct sockaddr *)&here, &size));
	}
	if (!keep)
		OK(setsockopt(fds[0], SOL_SOCKET, sharing, &off, sizeof off));
	ready_and_hold();
	for (int i = 0; i < 2; i++) {
		OK(getsockname(fds[i], (struct sockaddr *)&now, &size));
		CHECK(memcmp(&now, &here, sizeof now) == 0);
		struct stat status;
		OK(fstat(fds[i], &status));
		SAME(status.st_uid, 1234);
	}
	SAME(option(fds[0], sharing), keep);
	SAME(option(fds[1], sharing), 1);
	SAME(option(fds[0], sharing == SO_REUSEADDR ? SO_REUSEPORT : SO_REUSEADDR), 0);
	if (style == SOCK_STREAM) { /* connections are dealt to both */
		int taken[2] = {0};
		for (int turn = 0; turn < 200 && !(taken[0] && taken[1]); turn++) {
			int client = OK(socket(AF_INET, SOCK_STREAM, 0));
			OK(connect(client, (struct sockaddr *)&here, sizeof here));
			for (int i = 0; i < 2; i++) {
				OK(fcntl(fds[i], F_SETFL, O_NONBLOCK));
				int accepted = accept(fds[i], NULL, NULL);
				if (accepted >= 0) {
					taken[i]++;
					close(accepted);
				}
			}
			close(client);
		}
		CHECK(taken[0] && taken[1]);
	}
	pass();
}
