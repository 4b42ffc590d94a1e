/* Unix connections that wait to be accepted: their clients are silent, have sent something, have ended or are closed. */
#include "selfcheck.h"
#include <sys/socket.h>
#include <sys/un.h>

#define LONG 150000

static struct sockaddr_un address = {.sun_family = AF_UNIX};
static socklen_t length;
static char contents[LONG], got[LONG];

static int client(size_t sends)
{
	int fd = OK(socket(AF_UNIX, SOCK_STREAM, 0));
	OK(connect(fd, (struct sockaddr *)&address, length));
	if (sends)
		SAME(send(fd, contents, sends, MSG_DONTWAIT), sends);
	return fd;
}

/* Somebody else comes, and is gone. */
static void passes_by(uid_t uid, size_t sends)
{
	pid_t child = OK(fork());
	if (child == 0) {
		OK(setresgid(uid, uid, uid));
		OK(setresuid(uid, uid, uid));
		client(sends);
		_exit(0);
	}
	reap(child);
}

static int accepted(int listener, size_t sent, uid_t uid, pid_t pid)
{
	struct ucred peer;
	socklen_t size = sizeof peer;
	int fd = OK(accept(listener, NULL, NULL));
	OK(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size));
	SAME(peer.uid, uid);
	SAME(peer.gid, uid);
	if (pid)
		SAME(peer.pid, pid);
	memset(got, 0, sizeof got);
	if (sent)
		SAME(OK(recv(fd, got, sent, MSG_WAITALL)), sent);
	CHECK(memcmp(got, contents, sent) == 0);
	return fd;
}

static void ended(int fd)
{
	SAME(recv(fd, got, 1, 0), 0);
	close(fd);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	fill(contents, sizeof contents, 7);
	if (argc > 2 && strcmp(argv[2], "abstract") == 0) {
		length = offsetof(struct sockaddr_un, sun_path) + 1 + sprintf(address.sun_path + 1, "unaccepted-%d", getpid());
	} else {
		OK(chdir(test_directory));
		strcpy(address.sun_path, "unaccepted");
		length = sizeof address;
	}
	int listener = OK(socket(AF_UNIX, SOCK_STREAM, 0));
	OK(bind(listener, (struct sockaddr *)&address, length));
	if (address.sun_path[0]) {
		OK(chmod(test_directory, 0777));
		OK(chmod(address.sun_path, 0777));
	}
	OK(listen(listener, 20));
	int silent = client(0);
	passes_by(1234, 3000);
	int talker = client(LONG);
	passes_by(2345, 0);
	int halfway = client(10);
	OK(shutdown(halfway, SHUT_WR));
	passes_by(3456, LONG);
	ready_and_hold();
	FAILS(recv(silent, got, 1, MSG_DONTWAIT), EAGAIN);
	int one = accepted(listener, 0, 0, getpid());
	ended(accepted(listener, 3000, 1234, 0));
	int two = accepted(listener, LONG, 0, getpid());
	ended(accepted(listener, 0, 2345, 0));
	int three = accepted(listener, 10, 0, getpid());
	ended(accepted(listener, LONG, 3456, 0));
	OK(fcntl(listener, F_SETFL, O_NONBLOCK));
	FAILS(accept(listener, NULL, NULL), EAGAIN);
	SAME(send(silent, "now", 3, 0), 3);
	SAME(recv(one, got, sizeof got, 0), 3);
	SAME(send(talker, "more", 4, 0), 4);
	SAME(recv(two, got, sizeof got, 0), 4);
	SAME(recv(three, got, sizeof got, 0), 0);
	SAME(send(three, "answer", 6, 0), 6);
	SAME(recv(halfway, got, sizeof got, 0), 6);
	pass();
}
