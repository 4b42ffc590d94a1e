/* Calls on sockets with a time-out of their own (SO_RCVTIMEO, SO_SNDTIMEO): any stop would end them with EINTR. */
#include "blocked.h"
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

static const char *kind;
static int pair[2], listener, client;
static char big[PAGE];

static struct sockaddr_un address(void)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	snprintf(name.sun_path, sizeof name.sun_path, "%s", "socket");
	return name;
}

static bool is(const char *name) { return strcmp(kind, name) == 0; }

static void patient(int fd)
{
	struct timeval time = {.tv_sec = 15};
	OK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time));
	OK(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time));
}

static void body(void)
{
	char bytes[16] = "";
	struct iovec vector = {bytes, sizeof bytes};
	struct mmsghdr messages = {.msg_hdr = {.msg_iov = &vector, .msg_iovlen = 1}};
	struct sockaddr_un name = address();
	if (is("accept")) {
		close(OK(accept(listener, NULL, NULL)));
		return;
	}
	if (is("connect")) {
		OK(connect(client, (struct sockaddr *)&name, sizeof name));
		return;
	}
	if (is("send") || is("write") || is("sendmsg")) {
		struct iovec all = {big, PAGE};
		struct msghdr message = {.msg_iov = &all, .msg_iovlen = 1};
		SAME(OK(is("send") ? send(pair[0], big, PAGE, 0)
				   : is("write") ? write(pair[0], big, PAGE) : sendmsg(pair[0], &message, 0)),
		     PAGE);
		return;
	}
	if (is("recvmmsg")) {
		SAME(OK(recvmmsg(pair[0], &messages, 1, 0, NULL)), 1);
		SAME(messages.msg_len, 5);
	} else if (is("recvmsg"))
		SAME(OK(recvmsg(pair[0], &messages.msg_hdr, 0)), 5);
	else if (is("readv"))
		SAME(OK(readv(pair[0], &vector, 1)), 5);
	else if (is("read"))
		SAME(OK(read(pair[0], bytes, sizeof bytes)), 5);
	else
		SAME(OK(recv(pair[0], bytes, sizeof bytes, 0)), 5);
	CHECK(strcmp(bytes, "later") == 0);
}

static void wake(void)
{
	if (is("accept")) {
		struct sockaddr_un name = address();
		int fd = OK(socket(AF_UNIX, SOCK_STREAM, 0));
		OK(connect(fd, (struct sockaddr *)&name, sizeof name));
	} else if (is("connect"))
		close(OK(accept(listener, NULL, NULL)));
	else if (is("send") || is("write") || is("sendmsg")) {
		char got[PAGE];
		while (recv(pair[1], got, sizeof got, MSG_DONTWAIT) > 0)
			;
	} else
		SAME(send(pair[1], "later", 5, 0), 5);
}

static long call(void)
{
	return is("accept") ? SYS_accept : is("connect") ? SYS_connect : is("send") ? SYS_sendto : is("write") ? SYS_write
		: is("sendmsg") ? SYS_sendmsg : is("recvmmsg") ? SYS_recvmmsg : is("recvmsg") ? SYS_recvmsg
		: is("readv") ? SYS_readv : is("read") ? SYS_read : SYS_recvfrom;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	kind = argc > 2 ? argv[2] : "recv";
	OK(chdir(test_directory));
	if (is("accept") || is("connect")) {
		struct sockaddr_un name = address();
		listener = OK(socket(AF_UNIX, SOCK_STREAM, 0));
		OK(bind(listener, (struct sockaddr *)&name, sizeof name));
		OK(listen(listener, is("accept") ? 5 : 0));
		patient(listener);
		if (is("connect")) { /* one more than it takes waits */
			int first = OK(socket(AF_UNIX, SOCK_STREAM, 0));
			OK(connect(first, (struct sockaddr *)&name, sizeof name));
			client = OK(socket(AF_UNIX, SOCK_STREAM, 0));
			patient(client);
		}
	} else {
		bool sends = is("send") || is("write") || is("sendmsg");
		OK(socketpair(AF_UNIX, sends ? SOCK_SEQPACKET : SOCK_STREAM, 0, pair));
		patient(pair[0]);
		while (sends && send(pair[0], big, PAGE, MSG_DONTWAIT) > 0)
			;
	}
	hold_while_blocked(body, call(), -2, wake);
}
