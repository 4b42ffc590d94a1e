/* Connections that wait at a TCP listener: they are accepted in their order, with what was sent over them if
 * "data" is given. Clients are open, half-closed, and closed; a listener defers what sends nothing. */
#include "selfcheck.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#define CLIENTS 5
#define LONG 100000

union address {
	struct sockaddr any;
	struct sockaddr_in four;
	struct sockaddr_in6 six;
};

static int listener_at(union address *address, socklen_t *length)
{
	int fd = OK(socket(address->any.sa_family, SOCK_STREAM, 0));
	OK(bind(fd, &address->any, *length));
	OK(listen(fd, CLIENTS));
	OK(getsockname(fd, &address->any, length));
	return fd;
}

static void receive(int fd, size_t size, uint64_t seed)
{
	char *bytes = private(LONG);
	SAME(recv(fd, bytes, size, MSG_WAITALL), size);
	filled(bytes, size & ~7UL, seed);
	munmap(bytes, LONG);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	bool six = argc > 2 && strcmp(argv[2], "v6") == 0, data = argc > 3;
	union address address = {0}, deferred = {0};
	socklen_t length = six ? sizeof address.six : sizeof address.four, size;
	if (six) {
		address.six.sin6_family = AF_INET6;
		address.six.sin6_addr = in6addr_loopback;
	} else {
		address.four.sin_family = AF_INET;
		address.four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	}
	deferred = address;
	int listener = listener_at(&address, &length), late = listener_at(&deferred, &length), seconds = 30;
	OK(setsockopt(late, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof seconds));
	int clients[CLIENTS], on = 1;
	union address names[CLIENTS];
	char *bytes = private(LONG);
	for (int i = 0; i < CLIENTS; i++) {
		clients[i] = OK(socket(address.any.sa_family, SOCK_STREAM, 0));
		OK(connect(clients[i], &address.any, length));
		size = sizeof names[i];
		OK(getsockname(clients[i], &names[i].any, &size));
		usleep(20000); /* the kernel tells the age of what waits in ticks of its clock */
	}
	OK(setsockopt(clients[0], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
	if (data)
		for (int i = 0; i < CLIENTS - 1; i++) {
			size_t much = i == 1 ? LONG : 8;
			fill(bytes, much, i);
			SAME(send(clients[i], bytes, much, MSG_DONTWAIT), much);
		}
	OK(shutdown(clients[2], SHUT_WR));
	OK(close(clients[3]));
	int quiet = OK(socket(address.any.sa_family, SOCK_STREAM, 0));
	OK(connect(quiet, &deferred.any, length));
	ready_and_hold();
	for (int accepted = 0, seen = 0; accepted < CLIENTS; accepted++) {
		union address peer;
		size = sizeof peer;
		int fd = OK(accept(listener, &peer.any, &size)), i = 0;
		/* In order, but for what a restore has made within one tick. */
		while (i < CLIENTS && peer.four.sin_port != names[i].four.sin_port)
			i++;
		CHECK(i < CLIENTS && !(seen & 1 << i));
		seen |= 1 << i;
		if (data && i < CLIENTS - 1)
			receive(fd, i == 1 ? LONG : 8, i);
		char byte;
		if (i == 2 || i == 3)
			SAME(read(fd, &byte, 1), 0);
		if (i == 3)
			continue;
		SAME(write(fd, "answer", 6), 6);
		char answer[6];
		SAME(recv(clients[i], answer, 6, MSG_WAITALL), 6);
		if (i != 2) {
			SAME(write(clients[i], "again", 5), 5);
			SAME(recv(fd, answer, 5, MSG_WAITALL), 5);
		}
	}
	int value = 0;
	size = sizeof value;
	OK(getsockopt(clients[0], IPPROTO_TCP, TCP_NODELAY, &value, &size));
	SAME(value, 1);
	struct pollfd poll_late = {.fd = late, .events = POLLIN};
	SAME(poll(&poll_late, 1, 0), 0);
	SAME(write(quiet, "now", 3), 3);
	OK(accept(late, NULL, NULL));
	pass();
}
