/* Much in the queues of Unix sockets: 16 MiB of a stream, a thousand descriptors on their way, a socket on its way
 * through itself, and two that are only in each other's queues. */
#include "selfcheck.h"
#include <sys/resource.h>
#include <sys/socket.h>

#define MUCH (16UL << 20)
#define MESSAGES 8
#define EACH 125

static void send_fds(int to, const int *fds, int count, char byte)
{
	char control[CMSG_SPACE(sizeof(int) * EACH)] = {0};
	struct iovec data = {&byte, 1};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control};
	message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int) * count);
	memcpy(CMSG_DATA(header), fds, sizeof(int) * count);
	SAME(sendmsg(to, &message, 0), 1);
}

static void receive_fds(int from, int *fds, int count, char byte)
{
	char control[CMSG_SPACE(sizeof(int) * EACH)], got = 0;
	struct iovec data = {&got, 1};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control};
	message.msg_controllen = sizeof control;
	SAME(recvmsg(from, &message, 0), 1);
	SAME(got, byte);
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	CHECK(header && header->cmsg_len == CMSG_LEN(sizeof(int) * count));
	memcpy(fds, CMSG_DATA(header), sizeof(int) * count);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct rlimit few = {1024, 1024};
	OK(setrlimit(RLIMIT_NOFILE, &few));
	int stream[2], size = MUCH * 2, fds[EACH];
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, stream));
	OK(setsockopt(stream[0], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size));
	char *bytes = private(MUCH);
	fill(bytes, MUCH, 1);
	for (size_t done = 0; done < MUCH;)
		done += OK(send(stream[0], bytes + done, MUCH - done < 99991 ? MUCH - done : 99991, MSG_DONTWAIT));
	OK(munmap(bytes, MUCH));

	int crowd[2];
	OK(socketpair(AF_UNIX, SOCK_DGRAM, 0, crowd));
	OK(setsockopt(crowd[0], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size));
	for (int i = 0; i < MESSAGES; i++) {
		for (int j = 0; j < EACH; j++) {
			fds[j] = OK(memfd_create("one of many", MFD_CLOEXEC));
			SAME(dprintf(fds[j], "%03d", i * EACH + j), 3);
		}
		send_fds(crowd[0], fds, EACH, i);
		for (int j = 0; j < EACH; j++)
			OK(close(fds[j]));
	}
	int self[2], inner[2];
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, self));
	send_fds(self[0], self, 2, 's');
	OK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, inner));
	send_fds(inner[0], &inner[0], 1, 'i');
	send_fds(inner[1], &inner[1], 1, 'j');
	send_fds(crowd[0], inner, 2, 'c');
	OK(close(inner[0]));
	OK(close(inner[1]));

	ready_and_hold();
	bytes = private(MUCH);
	for (size_t done = 0; done < MUCH;)
		done += OK(recv(stream[1], bytes + done, MUCH - done, 0));
	filled(bytes, MUCH, 1);
	FAILS(recv(stream[1], bytes, 1, MSG_DONTWAIT), EAGAIN);
	for (int i = 0; i < MESSAGES; i++) {
		receive_fds(crowd[1], fds, EACH, i);
		for (int j = 0; j < EACH; j++) {
			char text[4] = "";
			SAME(pread(fds[j], text, 3, 0), 3);
			SAME(atoi(text), i * EACH + j);
			OK(close(fds[j]));
		}
	}
	receive_fds(self[1], fds, 2, 's');
	SAME(write(fds[0], "loop", 4), 4);
	SAME(read(self[1], bytes, 9), 4);
	receive_fds(crowd[1], inner, 2, 'c');
	receive_fds(inner[1], fds, 1, 'i');
	SAME(write(fds[0], "in", 2), 2);
	SAME(read(inner[1], bytes, 9), 2);
	receive_fds(inner[0], fds, 1, 'j');
	SAME(write(fds[0], "out", 3), 3);
	SAME(read(inner[0], bytes, 9), 3);
	pass();
}
