/* A TCP connection with somebody outside of the job: "flow" sends and receives all the time, "ended" has been told that
 * the other end says no more, "ends" has said so itself, "cut" finds it reset, "blocked" holds what cannot be saved, too. */
#include "selfcheck.h"
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>

#define PERIOD 65521
#define CHUNK 40000

static unsigned char pattern[2 * PERIOD];
static int fd;
static volatile int stop;
static uint64_t sent, received;

static void *sends(void *unused)
{
	(void)unused;
	while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST)) {
		sent += OK(send(fd, pattern + sent % PERIOD, CHUNK, MSG_NOSIGNAL));
		usleep(2000);
	}
	OK(shutdown(fd, SHUT_WR));
	return NULL;
}

static void receive_all(void)
{
	static unsigned char bytes[CHUNK];
	for (;;) {
		ssize_t got = OK(recv(fd, bytes, sizeof bytes, 0));
		if (got == 0)
			return;
		if (memcmp(bytes, pattern + received % PERIOD, got) != 0)
			FAIL("what came differs behind byte %" PRIu64, received);
		received += got;
		usleep(1000);
	}
}

static void *receives(void *unused)
{
	(void)unused;
	receive_all();
	return NULL;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	CHECK(argc == 5);
	for (unsigned i = 0; i < sizeof pattern; i++)
		pattern[i] = (i % PERIOD) * 2654435761u >> 16;
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}, *address;
	SAME(getaddrinfo(argv[3], argv[4], &hints, &address), 0);
	fd = OK(socket(address->ai_family, SOCK_STREAM, 0));
	OK(connect(fd, address->ai_addr, address->ai_addrlen));
	freeaddrinfo(address);
	if (strcmp(argv[2], "flow") == 0 || strcmp(argv[2], "blocked") == 0) {
		if (argv[2][0] == 'b') { /* a datagram that is not finished */
			struct sockaddr_in nobody = {.sin_family = AF_INET, .sin_port = htons(9)};
			nobody.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
			int corked = OK(socket(AF_INET, SOCK_DGRAM, 0));
			SAME(sendto(corked, "x", 1, MSG_MORE, (struct sockaddr *)&nobody, sizeof nobody), 1);
		}
		pthread_t sender, receiver;
		SAME(pthread_create(&sender, NULL, sends, NULL), 0);
		SAME(pthread_create(&receiver, NULL, receives, NULL), 0);
		ready_and_hold();
		uint64_t before = sent;
		while (__atomic_load_n(&sent, __ATOMIC_SEQ_CST) < before + 20 * CHUNK)
			usleep(1000);
		set(&stop, 1);
		pthread_join(sender, NULL);
		pthread_join(receiver, NULL);
		CHECK(received > 0);
	} else if (strcmp(argv[2], "ended") == 0) {
		struct pollfd ended = {.fd = fd, .events = POLLRDHUP};
		SAME(poll(&ended, 1, 10000), 1);
		ready_and_hold();
		SAME(poll(&ended, 1, 0), 1);
		SAME(ended.revents, POLLRDHUP);
		receive_all();
		SAME(received, 3 * CHUNK / 2);
		SAME(send(fd, pattern, CHUNK, 0), CHUNK);
		OK(shutdown(fd, SHUT_WR));
	} else if (strcmp(argv[2], "cut") == 0) {
		static unsigned char bytes[CHUNK];
		ssize_t got;
		SAME(recv(fd, bytes, 1, 0), 1);
		ready_and_hold();
		while ((got = recv(fd, bytes, sizeof bytes, 0)) > 0)
			;
		FAILS(got, ECONNRESET);
		SAME(recv(fd, bytes, sizeof bytes, 0), 0);
		FAILS(send(fd, pattern, 1, MSG_NOSIGNAL), EPIPE);
	} else {
		SAME(send(fd, pattern, CHUNK, 0), CHUNK);
		OK(shutdown(fd, SHUT_WR));
		ready_and_hold();
		FAILS(send(fd, pattern, 1, MSG_NOSIGNAL), EPIPE);
		receive_all();
		CHECK(received > 0);
	}
	pass();
}
