/* UDP sockets in which datagrams wait that they would not take any more: a filter, a small buffer, a connection. */
#include "selfcheck.h"
#include <linux/filter.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

static struct sockaddr_in bound(int fd)
{
	struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof here;
	OK(bind(fd, (struct sockaddr *)&here, size));
	OK(getsockname(fd, (struct sockaddr *)&here, &size));
	return here;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	static char bytes[1000];
	int fds[3], one = OK(socket(AF_INET, SOCK_DGRAM, 0)), other = OK(socket(AF_INET, SOCK_DGRAM, 0)), small = 1, lock = 1;
	struct sockaddr_in first = bound(one), second = bound(other), to[3];
	for (int i = 0; i < 3; i++) {
		fds[i] = OK(socket(AF_INET, SOCK_DGRAM, 0));
		to[i] = bound(fds[i]);
		for (int n = 0; n < 40; n++) {
			memset(bytes, n, sizeof bytes);
			SAME(sendto(n % 2 ? one : other, bytes, sizeof bytes, 0, (struct sockaddr *)&to[i], sizeof to[i]), sizeof bytes);
		}
	}
	struct sock_filter nothing = {BPF_RET | BPF_K, 0, 0, 0};
	struct sock_fprog filter = {1, &nothing};
	OK(setsockopt(fds[0], SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter));
	OK(setsockopt(fds[0], SOL_SOCKET, SO_LOCK_FILTER, &lock, sizeof lock));
	OK(setsockopt(fds[1], SOL_SOCKET, SO_RCVBUF, &small, sizeof small));
	OK(connect(fds[2], (struct sockaddr *)&first, sizeof first));
	/* two that are dealt what comes in, bound in another order than opened */
	int shared[2], count[2] = {0}, on = 1;
	for (int i = 0; i < 2; i++) {
		shared[i] = OK(socket(AF_INET, SOCK_DGRAM, 0));
		OK(setsockopt(shared[i], SOL_SOCKET, SO_REUSEPORT, &on, sizeof on));
	}
	struct sockaddr_in both = bound(shared[1]);
	OK(bind(shared[0], (struct sockaddr *)&both, sizeof both));
	for (int i = 0; i < 30; i++) {
		int sender = OK(socket(AF_INET, SOCK_DGRAM, 0));
		SAME(sendto(sender, &i, sizeof i, 0, (struct sockaddr *)&both, sizeof both), sizeof i);
		close(sender);
	}
	int order[2][30], value;
	for (int i = 0, offset = 0; i < 2; i++, offset = 0) {
		OK(setsockopt(shared[i], SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof offset));
		while (recv(shared[i], &value, sizeof value, MSG_DONTWAIT | MSG_PEEK) == sizeof value)
			order[i][count[i]++] = value;
		offset = -1;
		OK(setsockopt(shared[i], SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof offset));
	}
	SAME(count[0] + count[1], 30);
	ready_and_hold();
	for (int i = 0; i < 2; i++) {
		for (int n = 0; n < count[i]; n++) {
			SAME(recv(shared[i], &value, sizeof value, MSG_DONTWAIT), sizeof value);
			SAME(value, order[i][n]);
		}
		FAILS(recv(shared[i], &value, sizeof value, MSG_DONTWAIT), EAGAIN);
	}
	for (int i = 0; i < 3; i++) {
		for (int n = 0; n < 40; n++) {
			struct sockaddr_in from;
			socklen_t size = sizeof from;
			SAME(recvfrom(fds[i], bytes, sizeof bytes, MSG_DONTWAIT, (struct sockaddr *)&from, &size), sizeof bytes);
			SAME(bytes[0], n);
			SAME(from.sin_port, n % 2 ? first.sin_port : second.sin_port);
		}
		FAILS(recv(fds[i], bytes, sizeof bytes, MSG_DONTWAIT), EAGAIN);
	}
	SAME(sendto(one, "x", 1, 0, (struct sockaddr *)&to[0], sizeof to[0]), 1);
	SAME(sendto(other, "x", 1, 0, (struct sockaddr *)&to[2], sizeof to[2]), 1);
	FAILS(recv(fds[0], bytes, sizeof bytes, MSG_DONTWAIT), EAGAIN);
	FAILS(recv(fds[2], bytes, sizeof bytes, MSG_DONTWAIT), EAGAIN);
	FAILS(setsockopt(fds[0], SOL_SOCKET, SO_DETACH_FILTER, &small, sizeof small), EPERM);
	SAME(sendto(one, "x", 1, 0, (struct sockaddr *)&to[2], sizeof to[2]), 1);
	SAME(recv(fds[2], bytes, sizeof bytes, MSG_DONTWAIT), 1);
	pass();
}
