/* Pseudo-terminals in one process: data both ways, lines and beginnings of lines, settings, sizes, modes. */
#include "pty.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct pty cooked = pty_make(), raw = pty_make(), packet = pty_make(), unopened, left;
	char text[9000], got[20000];
	struct termios settings;
	struct winsize size = {.ws_row = 41, .ws_col = 133, .ws_xpixel = 7, .ws_ypixel = 9};
	OK(ioctl(cooked.master, TIOCSWINSZ, &size));
	OK(tcgetattr(cooked.slave, &settings));
	settings.c_lflag &= ~ECHO;
	settings.c_cc[VINTR] = 7;
	cfsetspeed(&settings, B9600);
	OK(tcsetattr(cooked.slave, TCSANOW, &settings));
	put(cooked.master, "first line\n");
	put(cooked.master, "no newline\004");
	put(cooked.master, "\004");
	put(cooked.master, "wrong\025last\nbegin");
	await_input(cooked.slave, 10 + 1 + 10 + 4 + 1);
	put(cooked.slave, "to the master\n");
	OK(tcgetattr(raw.slave, &settings));
	cfmakeraw(&settings);
	OK(tcsetattr(raw.slave, TCSANOW, &settings));
	for (size_t i = 0; i < sizeof text; i++)
		text[i] = (char)(i * 7 + i / 256);
	put_bytes(raw.master, text, 7000);
	put_bytes(raw.slave, text, 6500);
	int on = 1, second = OK(open(raw.name, O_WRONLY | O_NOCTTY | O_NONBLOCK));
	OK(ioctl(packet.master, TIOCPKT, &on));
	put(packet.slave, "packet\n");
	OK(ioctl(packet.slave, TIOCEXCL));
	unopened.master = master_make();
	OK(ioctl(unopened.master, TIOCSPTLCK, &on));
	fcntl(unopened.master, F_SETFL, O_NONBLOCK);
	snprintf(unopened.name, sizeof unopened.name, "%s", ptsname(unopened.master));
	left = pty_make();
	put(left.slave, "last words\n");
	close(left.slave);
	OK(fchmod(cooked.slave, 0620));
	ready_and_hold();

	struct winsize seen;
	OK(ioctl(cooked.slave, TIOCGWINSZ, &seen));
	CHECK(memcmp(&seen, &size, sizeof size) == 0);
	OK(tcgetattr(cooked.master, &settings));
	CHECK(!(settings.c_lflag & ECHO) && settings.c_lflag & ICANON && settings.c_cc[VINTR] == 7);
	SAME(cfgetospeed(&settings), B9600);
	struct stat status;
	OK(stat(cooked.name, &status));
	SAME(status.st_mode & 07777, 0620);
	OK(fstat(cooked.slave, &status));
	CHECK(status.st_rdev == cooked.device);
	char name[64];
	OK(ptsname_r(cooked.master, name, sizeof name) ? -1 : 0);
	CHECK(strcmp(name, cooked.name) == 0);
	CHECK(ttyname(cooked.slave) && strcmp(ttyname(cooked.slave), cooked.name) == 0);
	take(cooked.slave, "first line\n");
	take(cooked.slave, "no newline");
	take(cooked.slave, "");
	take(cooked.slave, "last\n");
	fcntl(cooked.slave, F_SETFL, O_NONBLOCK);
	FAILS(read(cooked.slave, got, sizeof got), EAGAIN);
	put(cooked.master, "ning\n");
	fcntl(cooked.slave, F_SETFL, 0);
	take(cooked.slave, "beginning\n");
	take(cooked.master, "to the master\r\n");
	take_bytes(raw.slave, got, 7000);
	CHECK(memcmp(got, text, 7000) == 0);
	take_bytes(raw.master, got, 6500);
	CHECK(memcmp(got, text, 6500) == 0);
	SAME(fcntl(second, F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_WRONLY | O_NONBLOCK);
	put(second, "more");
	take(raw.master, "more");
	SAME(read(packet.master, got, sizeof got), 9);
	CHECK(got[0] == TIOCPKT_DATA && memcmp(got + 1, "packet\r\n", 8) == 0);
	OK(ioctl(packet.slave, TIOCGEXCL, &on));
	SAME(on, 1);
	FAILS(open(unopened.name, O_RDWR | O_NOCTTY), EIO); /* locked */
	FAILS(read(unopened.master, got, sizeof got), EAGAIN); /* not EIO: nobody was there yet */
	OK(unlockpt(unopened.master));
	unopened.slave = OK(open(unopened.name, O_RDWR | O_NOCTTY));
	put(unopened.slave, "alive\n");
	take(unopened.master, "alive\r\n");
	take(left.master, "last words\r\n");
	FAILS(read(left.master, got, sizeof got), EIO);
	pass();
}
