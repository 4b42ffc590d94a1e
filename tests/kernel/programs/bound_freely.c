/* Sockets bound to addresses that the machine does not have (IP_FREEBIND), which was switched off behind that. */
#include "selfcheck.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#define FREEBIND_6 78

enum { UDP, LISTENER, UDP6, RAW, COUNT };
static int sockets[COUNT];
static struct sockaddr_storage names[COUNT];

static void bind_freely(int which, int fd, bool keep)
{
	union {
		struct sockaddr any;
		struct sockaddr_in four;
		struct sockaddr_in6 six;
	} to = {0};
	int on = 1, off = 0, domain;
	socklen_t size = sizeof domain;
	OK(getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size));
	bool six = domain == AF_INET6;
	to.any.sa_family = domain;
	/* of the networks for documentation: RFC 5737, RFC 3849 */
	SAME(inet_pton(domain, six ? "2001:db8::4d" : "192.0.2.77", six ? (void *)&to.six.sin6_addr : &to.four.sin_addr), 1);
	int level = six ? IPPROTO_IPV6 : IPPROTO_IP, option = six ? FREEBIND_6 : IP_FREEBIND;
	OK(setsockopt(fd, level, option, &on, sizeof on));
	OK(bind(fd, &to.any, sizeof to));
	if (!keep)
		OK(setsockopt(fd, level, option, &off, sizeof off));
	sockets[which] = fd;
	size = sizeof names[which];
	OK(getsockname(fd, (struct sockaddr *)&names[which], &size));
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	bind_freely(UDP, OK(socket(AF_INET, SOCK_DGRAM, 0)), false);
	bind_freely(LISTENER, OK(socket(AF_INET, SOCK_STREAM, 0)), true);
	OK(listen(sockets[LISTENER], 3));
	bind_freely(UDP6, OK(socket(AF_INET6, SOCK_DGRAM, 0)), false);
	bind_freely(RAW, OK(socket(AF_INET, SOCK_RAW, 253)), false);
	ready_and_hold();
	for (int i = 0; i < COUNT; i++) {
		struct sockaddr_storage now = {0};
		socklen_t size = sizeof now;
		OK(getsockname(sockets[i], (struct sockaddr *)&now, &size));
		CHECK(memcmp(&now, &names[i], size) == 0);
		int value = -1;
		size = sizeof value;
		OK(getsockopt(sockets[i], i == UDP6 ? IPPROTO_IPV6 : IPPROTO_IP, i == UDP6 ? FREEBIND_6 : IP_FREEBIND, &value,
			      &size));
		SAME(value, i == LISTENER);
	}
	pass();
}
