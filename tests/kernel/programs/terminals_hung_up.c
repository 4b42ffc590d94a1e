/* Slaves without their master, and one that was hung up while its master lives. */
#include "pty.h"

static void is_dead(int fd)
{
	char byte;
	struct pollfd poll_dead = {.fd = fd, .events = POLLIN};
	SAME(read(fd, &byte, 1), 0);
	FAILS(write(fd, "x", 1), (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY ? EBADF : EIO);
	FAILS(tcgetpgrp(fd), EIO);
	SAME(poll(&poll_dead, 1, 0), 1);
	CHECK(poll_dead.revents & POLLHUP);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct pty orphan = pty_make(), alive = pty_make();
	struct stat status;
	signal(SIGHUP, SIG_IGN);
	int nonblocking = OK(open(orphan.name, O_RDONLY | O_NOCTTY | O_NONBLOCK));
	close(orphan.master);
	is_dead(orphan.slave);
	OK(ioctl(alive.slave, TIOCVHANGUP));
	is_dead(alive.slave);
	ready_and_hold();
	is_dead(orphan.slave);
	is_dead(nonblocking);
	SAME(fcntl(nonblocking, F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_RDONLY | O_NONBLOCK);
	OK(fstat(orphan.slave, &status));
	SAME(major(status.st_rdev), 136);
	is_dead(alive.slave);
	char byte;
	fcntl(alive.master, F_SETFL, O_NONBLOCK);
	FAILS(read(alive.master, &byte, 1), EAGAIN);
	close(alive.slave);
	alive.slave = OK(open(alive.name, O_RDWR | O_NOCTTY));
	put(alive.slave, "alive\n");
	fcntl(alive.master, F_SETFL, 0);
	take(alive.master, "alive\r\n");
	close(alive.slave);
	FAILS(read(alive.master, &byte, 1), EIO);
	pass();
}
