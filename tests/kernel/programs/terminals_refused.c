/* Pseudo-terminals that cannot be saved: another line discipline, an echo without anybody on the other side. */
#include "pty.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct pty other = pty_make();
	int null = 27, discipline, echoing = master_make();
	OK(ioctl(other.slave, TIOCSETD, &null));
	put(echoing, "typed before anybody was there");
	struct pollfd poll_echo = {.fd = echoing, .events = POLLIN};
	SAME(poll(&poll_echo, 1, 10000), 1);
	ready_and_hold();
	OK(ioctl(other.slave, TIOCGETD, &discipline));
	SAME(discipline, null);
	take(echoing, "typed before anybody was there");
	FAILS((fcntl(echoing, F_SETFL, O_NONBLOCK), read(echoing, &null, 1)), EAGAIN);
	pass();
}
