/* TCP sockets that are connecting: by a blocked connect(2) and without blocking, to a listener whose queue is full;
 * and those whose connection failed with an error that is not told yet. */
#include "selfcheck.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>

static struct sockaddr_in address;
static int blocking;
static volatile int tid;

static int state_of(int fd)
{
	struct tcp_info info;
	socklen_t size = sizeof info;
	OK(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size));
	return info.tcpi_state;
}

static void *connects(void *unused)
{
	(void)unused;
	set(&tid, (int)syscall(SYS_gettid));
	OK(connect(blocking, (struct sockaddr *)&address, sizeof address));
	return NULL;
}

static int error_of(int fd)
{
	int error = 0;
	socklen_t size = sizeof error;
	OK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size));
	return error;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	socklen_t length = sizeof address;
	address.sin_family = AF_INET;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int listener = OK(socket(AF_INET, SOCK_STREAM, 0));
	OK(bind(listener, (struct sockaddr *)&address, length));
	OK(listen(listener, 0));
	OK(getsockname(listener, (struct sockaddr *)&address, &length));
	int filler = OK(socket(AF_INET, SOCK_STREAM, 0));
	OK(connect(filler, (struct sockaddr *)&address, length));
	int more = OK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
	FAILS(connect(more, (struct sockaddr *)&address, length), EINPROGRESS);
	SAME(state_of(more), TCP_SYN_SENT);
	struct sockaddr_in source = {0}, now = {0};
	OK(getsockname(more, (struct sockaddr *)&source, &length));
	blocking = OK(socket(AF_INET, SOCK_STREAM, 0));
	pthread_t thread;
	SAME(pthread_create(&thread, NULL, connects, NULL), 0);
	while (!tid)
		sched_yield();
	await_blocked_in(getpid(), tid, SYS_connect, SYS_connect);
	SAME(state_of(blocking), TCP_SYN_SENT);

	struct sockaddr_in nobody = address;
	int bound = OK(socket(AF_INET, SOCK_STREAM, 0)), refused = OK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
	nobody.sin_port = 0;
	OK(bind(bound, (struct sockaddr *)&nobody, length));
	OK(getsockname(bound, (struct sockaddr *)&nobody, &length));
	FAILS(connect(refused, (struct sockaddr *)&nobody, length), EINPROGRESS);
	SAME(state_of(refused), TCP_CLOSE);

	struct sockaddr_in other = address;
	other.sin_port = 0;
	int second = OK(socket(AF_INET, SOCK_STREAM, 0)), reset = OK(socket(AF_INET, SOCK_STREAM, 0));
	OK(bind(second, (struct sockaddr *)&other, length));
	OK(listen(second, 1));
	OK(getsockname(second, (struct sockaddr *)&other, &length));
	OK(connect(reset, (struct sockaddr *)&other, length));
	int accepted = OK(accept(second, NULL, NULL));
	struct linger linger = {.l_onoff = 1};
	OK(setsockopt(accepted, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
	OK(close(accepted));

	ready_and_hold();
	SAME(error_of(refused), ECONNREFUSED);
	SAME(error_of(refused), 0);
	char byte;
	FAILS(read(reset, &byte, 1), ECONNRESET);
	SAME(read(reset, &byte, 1), 0);
	OK(getsockname(more, (struct sockaddr *)&now, &length));
	SAME(ntohs(now.sin_port), ntohs(source.sin_port));
	SAME(fcntl(more, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	OK(listen(listener, 5));
	for (int i = 0; i < 3; i++)
		OK(accept(listener, NULL, NULL));
	SAME(pthread_join(thread, NULL), 0);
	struct pollfd poll_more = {.fd = more, .events = POLLOUT};
	SAME(poll(&poll_more, 1, 10000), 1);
	SAME(error_of(more), 0);
	SAME(state_of(more), TCP_ESTABLISHED);
	SAME(state_of(blocking), TCP_ESTABLISHED);
	pass();
}
