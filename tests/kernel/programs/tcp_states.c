/* TCP connections within the job in every state that is not ESTABLISHED, and what their ends still tell each other. */
#include "selfcheck.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

struct pair {
	int here, there;
	size_t sent; /* by here, more than there takes in */
};
static struct sockaddr_in address;
static int listener;

static void await_state(int fd, int state)
{
	struct timespec start, now;
	struct tcp_info info;
	OK(clock_gettime(CLOCK_MONOTONIC, &start));
	for (;;) {
		socklen_t size = sizeof info;
		OK(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size));
		if (info.tcpi_state == state)
			return;
		OK(clock_gettime(CLOCK_MONOTONIC, &now));
		if (now.tv_sec - start.tv_sec > 10)
			FAIL("state %d, not %d", info.tcpi_state, state);
		sched_yield();
	}
}

static struct pair connected(void)
{
	struct pair pair = {.here = OK(socket(AF_INET, SOCK_STREAM, 0))};
	int small = 4096;
	OK(setsockopt(pair.here, SOL_SOCKET, SO_SNDBUF, &small, sizeof small));
	OK(connect(pair.here, (struct sockaddr *)&address, sizeof address));
	pair.there = OK(accept(listener, NULL, NULL));
	return pair;
}

static unsigned char byte_at(size_t place) { return place * 2654435761u >> 13; }

/* Send until nothing more fits, so that an end of the stream must wait. */
static void stuff(struct pair *pair)
{
	unsigned char bytes[977];
	struct pollfd room = {.fd = pair->here, .events = POLLOUT};
	do
		for (;;) {
			for (size_t i = 0; i < sizeof bytes; i++)
				bytes[i] = byte_at(pair->sent + i);
			ssize_t took = send(pair->here, bytes, sizeof bytes, MSG_DONTWAIT);
			if (took < 0) {
				SAME(errno, EAGAIN);
				break;
			}
			pair->sent += took;
		}
	while (poll(&room, 1, 300) == 1);
}

static void expect_all(struct pair *pair)
{
	size_t got = 0;
	unsigned char bytes[4096];
	for (;;) {
		ssize_t part = OK(recv(pair->there, bytes, sizeof bytes, 0));
		if (part == 0)
			break;
		for (ssize_t i = 0; i < part; i++)
			if (bytes[i] != byte_at(got + i))
				FAIL("byte %zu differs", got + i);
		got += part;
	}
	SAME(got, pair->sent);
}

static void expect_end(int fd)
{
	char byte;
	SAME(recv(fd, &byte, 1, 0), 0);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	socklen_t length = sizeof address;
	int small = 4096, wait = 5;
	address.sin_family = AF_INET;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listener = OK(socket(AF_INET, SOCK_STREAM, 0));
	OK(setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof small));
	OK(bind(listener, (struct sockaddr *)&address, length));
	OK(listen(listener, 8));
	OK(getsockname(listener, (struct sockaddr *)&address, &length));

	/* FIN-WAIT-2 and CLOSE-WAIT */
	struct pair half = connected();
	OK(shutdown(half.here, SHUT_WR));
	await_state(half.here, TCP_FIN_WAIT2);
	await_state(half.there, TCP_CLOSE_WAIT);
	/* FIN-WAIT-1: the end waits behind data */
	struct pair full = connected();
	stuff(&full);
	OK(shutdown(full.here, SHUT_WR));
	await_state(full.here, TCP_FIN_WAIT1);
	/* CLOSING: and the other end has ended meanwhile */
	struct pair crossed = connected();
	stuff(&crossed);
	OK(shutdown(crossed.here, SHUT_WR));
	OK(shutdown(crossed.there, SHUT_WR));
	await_state(crossed.here, TCP_CLOSING);
	await_state(crossed.there, TCP_FIN_WAIT2);
	/* LAST-ACK: or before */
	struct pair last = connected();
	stuff(&last);
	OK(shutdown(last.there, SHUT_WR));
	await_state(last.here, TCP_CLOSE_WAIT);
	OK(shutdown(last.here, SHUT_WR));
	await_state(last.here, TCP_LAST_ACK);
	/* TIME-WAIT, at the listener's own port: nobody has it any more, the client's end is over */
	struct pair over = connected();
	OK(shutdown(over.there, SHUT_RDWR));
	expect_end(over.here);
	OK(shutdown(over.here, SHUT_WR));
	await_state(over.here, TCP_CLOSE);
	close(over.there);
	/* SYN-RECV: connected for the one end, and for the other not before there is data */
	int patient = OK(socket(AF_INET, SOCK_STREAM, 0)), hasty = OK(socket(AF_INET, SOCK_STREAM, 0));
	struct sockaddr_in other = {.sin_family = AF_INET, .sin_addr = address.sin_addr};
	OK(setsockopt(patient, IPPROTO_TCP, TCP_DEFER_ACCEPT, &wait, sizeof wait));
	OK(bind(patient, (struct sockaddr *)&other, length));
	OK(listen(patient, 8));
	OK(getsockname(patient, (struct sockaddr *)&other, &length));
	OK(connect(hasty, (struct sockaddr *)&other, length));
	await_state(hasty, TCP_ESTABLISHED);

	ready_and_hold();
	SAME(send(half.there, "back", 4, 0), 4);
	char bytes[8];
	SAME(recv(half.here, bytes, sizeof bytes, 0), 4);
	FAILS(send(half.here, "x", 1, MSG_NOSIGNAL), EPIPE);
	expect_end(half.there);
	close(half.there);
	expect_end(half.here);

	expect_all(&full);
	await_state(full.here, TCP_FIN_WAIT2);

	FAILS(send(crossed.here, "x", 1, MSG_NOSIGNAL), EPIPE);
	expect_end(crossed.here);
	expect_all(&crossed);
	await_state(crossed.here, TCP_CLOSE); /* what waits out the time is nobody's */

	expect_end(last.here);
	expect_all(&last);
	await_state(last.here, TCP_CLOSE);

	expect_end(over.here);
	FAILS(send(over.here, "x", 1, MSG_NOSIGNAL), EPIPE);
	struct pair more = connected();
	SAME(send(more.here, "more", 4, 0), 4);
	SAME(recv(more.there, bytes, sizeof bytes, 0), 4);

	SAME(send(hasty, "at last", 7, 0), 7);
	int accepted = OK(accept(patient, NULL, NULL));
	SAME(recv(accepted, bytes, sizeof bytes, 0), 7);
	pass();
}
