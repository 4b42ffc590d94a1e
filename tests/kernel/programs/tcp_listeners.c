/* Listening TCP, IPv4 and IPv6: address, port, options; connections come in after the restore. */
#include "selfcheck.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
	begin(argc, argv);
	bool six = argc > 2 && strcmp(argv[2], "v6") == 0;
	union {
		struct sockaddr any;
		struct sockaddr_in four;
		struct sockaddr_in6 six;
	} address = {0}, now = {0};
	socklen_t length = six ? sizeof address.six : sizeof address.four, size;
	if (six) {
		address.six.sin6_family = AF_INET6;
		address.six.sin6_addr = in6addr_loopback;
	} else {
		address.four.sin_family = AF_INET;
		address.four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	}
	int on = 1, value = 0, idle = 123;
	int listener = OK(socket(address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK, 0));
	OK(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
	OK(setsockopt(listener, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on));
	OK(setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
	OK(setsockopt(listener, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle));
	if (six)
		OK(setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on));
	OK(bind(listener, &address.any, length));
	OK(listen(listener, 17));
	size = sizeof address;
	OK(getsockname(listener, &address.any, &size));
	int unused = OK(socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
	ready_and_hold();
	size = sizeof now;
	OK(getsockname(listener, &now.any, &size));
	SAME(size, length);
	CHECK(memcmp(&now, &address, length) == 0);
	size = sizeof value;
	OK(getsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &value, &size));
	SAME(value, 1);
	OK(getsockopt(listener, SOL_SOCKET, SO_KEEPALIVE, &value, &size));
	SAME(value, 1);
	OK(getsockopt(listener, SOL_SOCKET, SO_ACCEPTCONN, &value, &size));
	SAME(value, 1);
	OK(getsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &value, &size));
	SAME(value, 1);
	OK(getsockopt(listener, IPPROTO_TCP, TCP_KEEPIDLE, &value, &size));
	SAME(value, 123);
	if (six) {
		OK(getsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &value, &size));
		SAME(value, 1);
	}
	FAILS(accept(listener, NULL, NULL), EAGAIN);
	OK(connect(unused, &address.any, length));
	int accepted;
	do
		accepted = accept(listener, NULL, NULL);
	while (accepted < 0 && errno == EAGAIN);
	OK(accepted);
	char bytes[8];
	SAME(write(unused, "hello", 5), 5);
	SAME(read(accepted, bytes, sizeof bytes), 5);
	SAME(fcntl(unused, F_GETFD), FD_CLOEXEC);
	pass();
}
