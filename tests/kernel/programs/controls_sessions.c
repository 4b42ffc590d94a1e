/* Sessions with controlling terminals: foreground groups, /dev/tty, who gave the terminal up, ^C, a lost master.
 *
 * The parent has the master. The leader of the session has no descriptor of its terminal left, its children have.
 */
#include "pty.h"

struct shared {
	volatile int set, interrupted, hung_up, checked;
};
static struct shared *seen;

static void on_interrupt(int signo) { (void)signo, set(&seen->interrupted, getpid()); }
static void on_hangup(int signo) { (void)signo, set(&seen->hung_up, getpid()); }

static void say_set(void)
{
	__atomic_add_fetch(&seen->set, 1, __ATOMIC_SEQ_CST);
	hold();
}
static void say_checked(void) { __atomic_add_fetch(&seen->checked, 1, __ATOMIC_SEQ_CST); }

/* In the foreground, with /dev/tty open since before. */
static void foreground(int current, int slave, pid_t leader)
{
	struct stat status;
	signal(SIGINT, on_interrupt);
	say_set();
	OK(fstat(current, &status));
	SAME(major(status.st_rdev), 5);
	char link[64] = "";
	OK(readlink("/proc/self/fd/100", link, sizeof link));
	CHECK(strcmp(link, "/dev/tty") == 0);
	SAME(tcgetpgrp(current), getpgrp());
	SAME(tcgetsid(slave), leader);
	put(current, "from the foreground\n");
	int again = OK(open("/dev/tty", O_RDWR));
	close(again);
	await(&seen->interrupted, getpid());
	take(current, "typed\n");
	say_checked();
	for (;;)
		pause();
}

static void without(int slave)
{
	OK(ioctl(slave, TIOCNOTTY, 0));
	FAILS(open("/dev/tty", O_RDWR), ENXIO);
	say_set();
	FAILS(open("/dev/tty", O_RDWR), ENXIO);
	FAILS(tcgetpgrp(slave), ENOTTY);
	say_checked();
	for (;;)
		pause();
}

static void background(int slave, pid_t group)
{
	signal(SIGINT, on_interrupt);
	say_set();
	SAME(tcgetpgrp(slave), group);
	CHECK(getpgrp() != group);
	signal(SIGTTIN, SIG_IGN);
	char byte;
	FAILS(read(slave, &byte, 1), EIO); /* it is not in the foreground */
	say_checked();
	for (;;)
		pause();
}

static void leader(const struct pty *pty)
{
	close(pty->master);
	SAME(setsid(), getpid());
	OK(ioctl(pty->slave, TIOCSCTTY, 0));
	signal(SIGHUP, on_hangup);
	signal(SIGTTOU, SIG_IGN);
	OK(dup3(OK(open("/dev/tty", O_RDWR)), 100, 0));
	pid_t me = getpid(), front = OK(fork());
	if (!front) {
		OK(setpgid(0, 0));
		foreground(100, pty->slave, me);
	}
	setpgid(front, front);
	OK(tcsetpgrp(pty->slave, front));
	pid_t bare = OK(fork());
	if (!bare)
		without(pty->slave);
	pid_t back = OK(fork());
	if (!back) {
		OK(setpgid(0, 0));
		background(pty->slave, front);
	}
	close_range(3, ~0U, 0);
	say_set();
	int current = OK(open("/dev/tty", O_RDWR));
	SAME(tcgetpgrp(current), front);
	close(current);
	say_checked(); /* before the parent hangs up */
	await(&seen->hung_up, me);
	FAILS(open("/dev/tty", O_RDWR), ENXIO);
	kill(front, SIGKILL);
	kill(bare, SIGKILL);
	kill(back, SIGKILL);
	while (wait(NULL) > 0)
		;
	SAME(seen->checked, 4);
	_exit(0);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	seen = shared(sizeof *seen);
	struct pty pty = pty_make();
	struct termios settings;
	OK(tcgetattr(pty.slave, &settings));
	settings.c_lflag &= ~ECHO;
	OK(tcsetattr(pty.slave, TCSANOW, &settings));
	pid_t child = OK(fork());
	if (!child)
		leader(&pty);
	close(pty.slave);
	await(&seen->set, 4);
	ready_and_hold();
	SAME(tcgetsid(pty.master), child);
	CHECK(tcgetpgrp(pty.master) > 0 && tcgetpgrp(pty.master) != child);
	take(pty.master, "from the foreground\r\n");
	put(pty.master, "\003"); /* ^C, which empties the queues */
	await(&seen->interrupted, tcgetpgrp(pty.master));
	put(pty.master, "typed\n");
	await(&seen->checked, 4);
	close(pty.master);
	reap(child);
	pass();
}
