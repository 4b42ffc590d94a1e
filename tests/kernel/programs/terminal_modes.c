/* Pseudo-terminals that are full, stopped, in packet mode with news, with locked settings, or echo. */
#include "pty.h"

static bool can_write(int fd)
{
	struct pollfd poll_out = {.fd = fd, .events = POLLOUT};
	SAME(poll(&poll_out, 1, 0) >= 0, 1);
	return poll_out.revents & POLLOUT;
}
static void await_stopped(int fd)
{
	double start = seconds(CLOCK_MONOTONIC);
	while (can_write(fd)) {
		if (seconds(CLOCK_MONOTONIC) - start > 10)
			FAIL("output is not stopped");
		sched_yield();
	}
}

static size_t fill_up(int fd, const char *text, size_t size)
{
	size_t all = 0;
	int flags = fcntl(fd, F_GETFL);
	fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	for (int pause = 0; pause < 20; pause++, usleep(1000))
		for (ssize_t done; (done = write(fd, text + all % size, size - all % size)) > 0; pause = 0)
			all += (size_t)done;
	fcntl(fd, F_SETFL, flags);
	return all;
}

static void change(int fd, tcflag_t input, tcflag_t local)
{
	struct termios settings;
	OK(tcgetattr(fd, &settings));
	settings.c_iflag = input;
	settings.c_lflag = local;
	OK(tcsetattr(fd, TCSANOW, &settings));
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct pty lines = pty_make(), printed = pty_make(), by_call = pty_make(), by_key = pty_make();
	struct pty news = pty_make(), started = pty_make(), locked = pty_make(), echo = pty_make(), master = pty_make();
	static char text[6000], expected[6000], got[40000];
	int on = 1;

	/* More lines than a line discipline holds: the rest is yet to be translated, and must not be twice. */
	change(lines.slave, ICRNL, ICANON);
	for (int line = 0; line < 400; line++) {
		snprintf(text + line * 15, 16, "line %08d\r\r", line);
		snprintf(expected + line * 15, 16, "line %08d\n\n", line);
	}
	put_bytes(lines.master, text, sizeof text);
	change(printed.slave, 0, 0);
	size_t all = fill_up(printed.slave, text, sizeof text);
	CHECK(all > 8000);

	OK(tcflow(by_call.slave, TCOOFF));
	await_stopped(by_call.slave);
	change(by_key.slave, IXON, 0);
	put(by_key.slave, "before ^S");
	put(by_key.master, "typed\023");
	await_stopped(by_key.slave);
	OK(tcflow(master.master, TCOOFF));
	await_stopped(master.master);

	OK(ioctl(news.master, TIOCPKT, &on));
	OK(ioctl(started.master, TIOCPKT, &on));
	change(news.slave, 0, 0); /* no flow control any more */
	OK(tcflush(news.slave, TCIOFLUSH));
	put(news.slave, "news");
	OK(tcflow(started.slave, TCOOFF));
	OK(tcflow(started.slave, TCOON));

	struct termios mask = {.c_lflag = ECHO, .c_iflag = 0};
	OK(ioctl(locked.slave, TIOCSLCKTRMIOS, &mask));
	put(locked.master, "half a li");
	put(echo.master, "echoed\nhal");
	struct pollfd poll_echo = {.fd = echo.master, .events = POLLIN};
	SAME(poll(&poll_echo, 1, 10000), 1);
	int reader = OK(open(echo.name, O_RDONLY | O_NOCTTY)), writer = OK(open(echo.name, O_WRONLY | O_NOCTTY));
	close(echo.slave);
	await_input(reader, 7);
	ready_and_hold();

	take_bytes(lines.slave, got, sizeof expected);
	CHECK(memcmp(got, expected, sizeof expected) == 0);
	take_bytes(printed.master, got, all);
	for (size_t i = 0; i < all; i++)
		CHECK(got[i] == text[i % sizeof text]);

	CHECK(!can_write(by_call.slave));
	OK(tcflow(by_call.slave, TCOON));
	CHECK(can_write(by_call.slave));
	CHECK(!can_write(by_key.slave));
	OK(tcflow(by_key.slave, TCOON)); /* that is not what stopped it */
	CHECK(!can_write(by_key.slave));
	put(by_key.master, "\021");
	struct pollfd poll_out = {.fd = by_key.slave, .events = POLLOUT};
	SAME(poll(&poll_out, 1, 10000), 1);
	take(by_key.master, "before ^S");
	take(by_key.slave, "typed");
	CHECK(!can_write(master.master));
	OK(tcflow(master.master, TCOON));
	CHECK(can_write(master.master));

	struct pollfd poll_news = {.fd = news.master, .events = POLLPRI};
	SAME(poll(&poll_news, 1, 0), 1);
	SAME(read(news.master, got, sizeof got), 1);
	SAME(got[0], TIOCPKT_FLUSHREAD | TIOCPKT_FLUSHWRITE | TIOCPKT_NOSTOP);
	SAME(read(news.master, got, sizeof got), 5);
	CHECK(memcmp(got, "\0news", 5) == 0);
	SAME(read(started.master, got, sizeof got), 1);
	SAME(got[0], TIOCPKT_START);

	change(locked.slave, 0, ICANON);
	struct termios settings;
	OK(tcgetattr(locked.slave, &settings));
	CHECK(settings.c_lflag == (ICANON | ECHO)); /* that bit is not to be changed */
	put(locked.master, "ne\n");
	take(locked.slave, "half a line\n");
	put(echo.master, "f\n");
	await_input(reader, 12);
	take(reader, "echoed\n");
	take(reader, "half\n");
	put(writer, "end\n");
	take_bytes(echo.master, got, 19);
	CHECK(memcmp(got, "echoed\r\nhalf\r\nend\r\n", 19) == 0);
	pass();
}
