/* A session keeps its terminal although nobody has that open any more; so does one whose leader has a child only. */
#include "pty.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct pty pty = pty_make(), none = pty_make();
	volatile int *seen = shared(PAGE);
	char byte;
	put(none.slave, "\n");
	pid_t child = OK(fork());
	if (!child) {
		signal(SIGHUP, SIG_IGN);
		SAME(setsid(), getpid());
		OK(ioctl(pty.slave, TIOCSCTTY, 0));
		close(pty.master);
		close(none.master);
		close(none.slave);
		close(pty.slave);
		set(&seen[0], 1);
		hold();
		int slave = OK(open("/dev/tty", O_RDWR));
		SAME(tcgetpgrp(slave), getpid());
		SAME(tcgetsid(slave), getpid());
		put(slave, "from the leader\n");
		take(slave, "typed\n");
		await(&seen[1], 1);
		close(slave);
		_exit(0);
	}
	close(pty.slave);
	close(none.slave);
	await(&seen[0], 1);
	ready_and_hold();
	SAME(tcgetsid(pty.master), child);
	FAILS(tcgetsid(none.master), ENOTTY);
	put(pty.master, "typed\n");
	for (const char *line = "typed\r\nfrom the leader\r\n"; *line;) { /* an echo before it, or behind */
		struct pollfd poll_master = {.fd = pty.master, .events = POLLIN};
		SAME(poll(&poll_master, 1, 10000), 1);
		if (poll_master.revents & POLLIN) {
			SAME(read(pty.master, &byte, 1), 1);
			line++;
		}
	}
	set(&seen[1], 1);
	reap(child);
	FAILS(read(pty.master, &byte, 1), EIO);
	take(none.master, "\r\n");
	FAILS(read(none.master, &byte, 1), EIO);
	pass();
}
