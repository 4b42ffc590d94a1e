/* TCP connections within the job over which data flows while it is saved: the kernel sends by its timers, slowly. */
#include "selfcheck.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#define PAIRS 6
#define BYTES (3 << 20)
#define SLOWLY 1500000 /* bytes a second */
#define BETWEEN 700    /* open files that are looked at behind the senders and before the receivers */

static uint64_t contents[BYTES / 8], got[BYTES / 8];

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof here;
	int buffer = 4 * BYTES, mss = 1000, rate = SLOWLY, fast = -1, ends[PAIRS][2];
	int listener = OK(socket(AF_INET, SOCK_STREAM, 0));
	OK(setsockopt(listener, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer));
	OK(setsockopt(listener, IPPROTO_TCP, TCP_MAXSEG, &mss, sizeof mss));
	OK(bind(listener, (struct sockaddr *)&here, sizeof here));
	OK(listen(listener, PAIRS));
	OK(getsockname(listener, (struct sockaddr *)&here, &size));
	for (int i = 0; i < PAIRS; i++) {
		int *end = ends[i];
		end[0] = OK(socket(AF_INET, SOCK_STREAM, 0));
		OK(setsockopt(end[0], SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof buffer));
		OK(connect(end[0], (struct sockaddr *)&here, sizeof here));
		end[1] = OK(accept(listener, NULL, NULL));
		OK(setsockopt(end[0], SOL_SOCKET, SO_MAX_PACING_RATE, &rate, sizeof rate));
	}
	for (int i = 0; i < BETWEEN; i++)
		OK(eventfd(0, 0));
	for (int i = 0; i < PAIRS; i++) {
		int low = ends[i][1];
		ends[i][1] = OK(fcntl(low, F_DUPFD, BETWEEN + 100));
		close(low);
	}
	for (int i = 0; i < PAIRS; i++) {
		fill(contents, BYTES, i);
		SAME(send(ends[i][0], contents, BYTES, MSG_DONTWAIT), BYTES);
	}
	ready_and_hold();
	for (int i = 0; i < PAIRS; i++)
		OK(setsockopt(ends[i][0], SOL_SOCKET, SO_MAX_PACING_RATE, &fast, sizeof fast));
	for (int i = 0; i < PAIRS; i++) {
		struct timeval patience = {.tv_sec = 10};
		OK(setsockopt(ends[i][1], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience));
		SAME(OK(recv(ends[i][1], got, BYTES, MSG_WAITALL)), BYTES);
		filled(got, BYTES, i);
		SAME(recv(ends[i][1], got, 1, MSG_DONTWAIT), -1);
	}
	pass();
}
