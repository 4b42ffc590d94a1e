/* A TCP connection within the job that is cut, on demand: both ends find it ended, and the listener goes on. */
#include "selfcheck.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

static void ended(int fd, const char *unread)
{
	char bytes[64];
	struct tcp_info info;
	socklen_t size = sizeof info;
	OK(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size));
	SAME(info.tcpi_state, TCP_CLOSE);
	struct pollfd poll_it = {.fd = fd};
	SAME(poll(&poll_it, 1, 0), 1);
	SAME(poll_it.revents, POLLHUP);
	size_t length = strlen(unread);
	if (length) {
		SAME(recv(fd, bytes, sizeof bytes, 0), length);
		CHECK(memcmp(bytes, unread, length) == 0);
	}
	SAME(recv(fd, bytes, sizeof bytes, 0), 0);
	FAILS(send(fd, "x", 1, MSG_NOSIGNAL), EPIPE);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof here;
	int listener = OK(socket(AF_INET, SOCK_STREAM, 0));
	OK(bind(listener, (struct sockaddr *)&here, sizeof here));
	OK(listen(listener, 5));
	OK(getsockname(listener, (struct sockaddr *)&here, &size));
	int client = OK(socket(AF_INET, SOCK_STREAM, 0));
	OK(connect(client, (struct sockaddr *)&here, sizeof here));
	int accepted = OK(accept(listener, NULL, NULL));
	SAME(send(client, "last words", 10, 0), 10);
	struct pollfd heard = {.fd = accepted, .events = POLLIN};
	SAME(poll(&heard, 1, 10000), 1);
	ready_and_hold();
	ended(client, "");
	ended(accepted, "last words");
	int again = OK(socket(AF_INET, SOCK_STREAM, 0));
	OK(connect(again, (struct sockaddr *)&here, sizeof here));
	OK(accept(listener, NULL, NULL));
	pass();
}
