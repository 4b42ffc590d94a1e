/* Raw sockets of the protocols that have sockets of their own: TCP, UDP, ... They are raw all the same. */
#include "selfcheck.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

static const int protocols[] = {IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE, IPPROTO_SCTP, 262 /* MPTCP */};
enum { COUNT = sizeof protocols / sizeof protocols[0] };

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
	int four[COUNT], six[COUNT];
	/* bound to where nobody else sends anything */
	struct sockaddr_in quiet = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f4d4d01)};
	struct sockaddr_in6 beyond = {.sin6_family = AF_INET6};
	SAME(inet_pton(AF_INET6, "2001:db8::77", &beyond.sin6_addr), 1);
	for (int i = 0; i < COUNT; i++) {
		int on = 1;
		four[i] = OK(socket(AF_INET, SOCK_RAW, protocols[i]));
		OK(bind(four[i], (struct sockaddr *)&quiet, sizeof quiet));
		six[i] = OK(socket(AF_INET6, SOCK_RAW, protocols[i]));
		OK(setsockopt(six[i], IPPROTO_IPV6, 78 /* IPV6_FREEBIND */, &on, sizeof on));
		OK(bind(six[i], (struct sockaddr *)&beyond, sizeof beyond));
	}
	ready_and_hold();
	for (int i = 0; i < COUNT; i++) {
		SAME(option(four[i], SO_TYPE), SOCK_RAW);
		SAME(option(four[i], SO_PROTOCOL), protocols[i]);
		SAME(option(six[i], SO_TYPE), SOCK_RAW);
		SAME(option(six[i], SO_PROTOCOL), protocols[i]);
	}
	/* a datagram to a port that nobody has is heard by the raw socket */
	char bytes[64];
	int sender = OK(socket(AF_INET, SOCK_DGRAM, 0));
	quiet.sin_port = htons(9);
	SAME(sendto(sender, "hello", 5, 0, (struct sockaddr *)&quiet, sizeof quiet), 5);
	SAME(recv(four[1], bytes, sizeof bytes, 0), 20 + 8 + 5);
	CHECK(memcmp(bytes + 28, "hello", 5) == 0);
	pass();
}
