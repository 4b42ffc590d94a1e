/* Pseudo-terminals of self-checking programs. */
#ifndef PTY_H
#define PTY_H
#include "selfcheck.h"
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <termios.h>

struct pty {
	int master, slave;
	dev_t device;
	char name[64];
};

/* Open a master with a number that nobody else is likely to get before a restore: whoever needs a terminal on this
 * machine meanwhile gets a lower one, and the same program beside this one others. */
MAYBE int master_make(void)
{
	int others[512 + 20], count = 0, first = 20 + getpid() * 16 % 512, master, number;
	for (;;) {
		master = OK(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
		OK(ioctl(master, TIOCGPTN, &number));
		if (number >= first || count == first)
			break;
		others[count++] = master;
	}
	while (count)
		close(others[--count]);
	OK(unlockpt(master));
	return master;
}

MAYBE struct pty pty_make(void)
{
	struct pty pty = {.master = master_make()};
	struct stat status;
	OK(ptsname_r(pty.master, pty.name, sizeof pty.name) ? -1 : 0);
	pty.slave = OK(open(pty.name, O_RDWR | O_NOCTTY | O_CLOEXEC));
	OK(fstat(pty.slave, &status));
	pty.device = status.st_rdev;
	return pty;
}

MAYBE void put_bytes(int fd, const char *bytes, size_t size)
{
	while (size) {
		ssize_t put = OK(write(fd, bytes, size));
		bytes += put;
		size -= (size_t)put;
	}
}
MAYBE void put(int fd, const char *text) { put_bytes(fd, text, strlen(text)); }

/* What the next read returns. */
MAYBE void take(int fd, const char *text)
{
	char got[256];
	ssize_t size = OK(read(fd, got, sizeof got - 1));
	got[size] = 0;
	if (strcmp(got, text) != 0)
		FAIL("read \"%s\", not \"%s\"", got, text);
}
MAYBE void take_bytes(int fd, char *bytes, size_t size)
{
	while (size) {
		ssize_t got = OK(read(fd, bytes, size));
		CHECK(got > 0);
		bytes += got;
		size -= (size_t)got;
	}
}

/* Wait until so many bytes of whole lines can be read. */
MAYBE void await_input(int fd, int size)
{
	int waiting;
	double start = seconds(CLOCK_MONOTONIC);
	do {
		OK(ioctl(fd, FIONREAD, &waiting));
		if (seconds(CLOCK_MONOTONIC) - start > 10)
			FAIL("%d bytes wait, not %d", waiting, size);
		sched_yield();
	} while (waiting != size);
}
#endif
