/* Named Unix sockets: a listener with a connected client and accepted peer in the job, new connections, datagrams. */
#include "selfcheck.h"
#include <sys/socket.h>
#include <sys/un.h>

static struct sockaddr_un named(const char *name, socklen_t *length)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	strcpy(address.sun_path + (name[0] == '@'), name + (name[0] == '@'));
	*length = offsetof(struct sockaddr_un, sun_path) + strlen(name) + (name[0] != '@');
	return address;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	const char *name = argc > 2 && strcmp(argv[2], "abstract") == 0 ? "@selfcheck" : "listener";
	char own[64], bytes[64] = "";
	OK(chdir(test_directory));
	if (name[0] == '@') {
		snprintf(own, sizeof own, "@selfcheck-%d", getpid());
		name = own;
	}
	socklen_t length;
	struct sockaddr_un address = named(name, &length), peer;
	int listener = OK(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
	OK(bind(listener, (struct sockaddr *)&address, length));
	OK(listen(listener, 7));
	int client = OK(socket(AF_UNIX, SOCK_STREAM, 0));
	OK(connect(client, (struct sockaddr *)&address, length));
	int accepted = OK(accept(listener, NULL, NULL));
	SAME(write(client, "to the server", 13), 13);
	SAME(write(accepted, "to the client", 13), 13);
	struct ucred before, now;
	socklen_t size = sizeof before;
	OK(getsockopt(accepted, SOL_SOCKET, SO_PEERCRED, &before, &size));
	int unused = OK(socket(AF_UNIX, SOCK_STREAM, 0));
	volatile int *stage = shared(PAGE);
	pid_t child = OK(fork());
	if (child == 0) {
		close(client);
		await(stage, 1);
		SAME(read(accepted, bytes, sizeof bytes), 13);
		CHECK(strcmp(bytes, "to the server") == 0);
		SAME(write(accepted, "!", 1), 1);
		_exit(0);
	}
	ready_and_hold();
	set(stage, 1);
	SAME(OK(recv(client, bytes, 13, MSG_WAITALL)), 13);
	CHECK(strcmp(bytes, "to the client") == 0);
	reap(child);
	SAME(read(client, bytes, sizeof bytes), 1);
	OK(getsockopt(accepted, SOL_SOCKET, SO_PEERCRED, &now, &size));
	SAME(now.uid, before.uid);
	SAME(now.pid, before.pid);
	size = sizeof peer;
	OK(getpeername(client, (struct sockaddr *)&peer, &size));
	SAME(size, length);
	CHECK(memcmp(&peer, &address, size) == 0);
	size = sizeof peer;
	OK(getsockname(listener, (struct sockaddr *)&peer, &size));
	CHECK(memcmp(&peer, &address, size) == 0);
	/* a socket that had nothing done to it connects, and the listener takes it */
	OK(connect(unused, (struct sockaddr *)&address, length));
	int second = OK(accept(listener, NULL, NULL));
	SAME(write(unused, "new", 3), 3);
	SAME(read(second, bytes, sizeof bytes), 3);
	SAME(fcntl(listener, F_GETFD), FD_CLOEXEC);
	pass();
}
