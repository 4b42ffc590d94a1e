/* Reads, writes, accept and receive that block, and waits for children. */
#include "blocked.h"
#include <sys/socket.h>
#include <sys/un.h>

static const char *kind;
static int ends[2], pair[2], listener, child_may_end[2];
static pid_t child;
static char big[PAGE];

static struct sockaddr_un address(void)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	snprintf(name.sun_path, sizeof name.sun_path, "%s", "socket");
	return name;
}

static void body(void)
{
	char bytes[16] = "";
	int status;
	if (strcmp(kind, "read") == 0) {
		SAME(OK(read(ends[0], bytes, sizeof bytes)), 5);
		CHECK(strcmp(bytes, "later") == 0);
	} else if (strcmp(kind, "write") == 0) {
		/* The pipe is full, and this many bytes go in together or not at all. (A larger write that has begun
		 * ends short at any interruption, a freeze included; that is the kernel's to answer for.) */
		SAME(OK(write(ends[1], big, PAGE)), PAGE);
	} else if (strcmp(kind, "recv") == 0) {
		SAME(OK(recv(pair[0], bytes, sizeof bytes, 0)), 5);
		CHECK(strcmp(bytes, "later") == 0);
	} else if (strcmp(kind, "accept") == 0) {
		close(OK(accept(listener, NULL, NULL)));
	} else {
		SAME(OK(waitpid(child, &status, 0)), child);
		SAME(WEXITSTATUS(status), 12);
	}
}

static void wake(void)
{
	if (strcmp(kind, "read") == 0)
		SAME(write(ends[1], "later", 5), 5);
	else if (strcmp(kind, "write") == 0) {
		char got[PAGE];
		for (int page = 0; page < 17; page++) {
			for (size_t total = 0; total < PAGE;)
				total += OK(read(ends[0], got + total, PAGE - total));
			CHECK(memcmp(got, big, PAGE) == 0);
		}
	} else if (strcmp(kind, "recv") == 0)
		SAME(send(pair[1], "later", 5, 0), 5);
	else if (strcmp(kind, "accept") == 0) {
		struct sockaddr_un name = address();
		int fd = OK(socket(AF_UNIX, SOCK_STREAM, 0));
		OK(connect(fd, (struct sockaddr *)&name, sizeof name));
	} else
		close(child_may_end[1]);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	kind = argc > 2 ? argv[2] : "read";
	fill(big, sizeof big, 3);
	long call = SYS_wait4;
	OK(chdir(test_directory));
	if (strcmp(kind, "read") == 0 || strcmp(kind, "write") == 0) {
		OK(pipe(ends));
		for (int page = 0; strcmp(kind, "write") == 0 && page < 16; page++)
			SAME(write(ends[1], big, PAGE), PAGE);
		call = strcmp(kind, "read") == 0 ? SYS_read : SYS_write;
	} else if (strcmp(kind, "recv") == 0) {
		OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
		call = SYS_recvfrom;
	} else if (strcmp(kind, "accept") == 0) {
		struct sockaddr_un name = address();
		listener = OK(socket(AF_UNIX, SOCK_STREAM, 0));
		OK(bind(listener, (struct sockaddr *)&name, sizeof name));
		OK(listen(listener, 5));
		call = SYS_accept;
	} else {
		OK(pipe(child_may_end));
		child = OK(fork());
		if (child == 0) {
			char byte;
			close(child_may_end[1]);
			SAME(read(child_may_end[0], &byte, 1), 0);
			_exit(12);
		}
		close(child_may_end[0]);
	}
	hold_while_blocked(body, call, -2, wake);
}
