/* A devpts of the job's own, whose numbers are its own. Needs a mount namespace of its own. */
#include "pty.h"
#include <sys/mount.h>

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct pty low, high;
	char link[64] = "";
	OK(mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"));
	OK(mount("/dev/pts/ptmx", "/dev/ptmx", NULL, MS_BIND, NULL));
	int first = OK(posix_openpt(O_RDWR | O_NOCTTY));
	low.master = OK(posix_openpt(O_RDWR | O_NOCTTY));
	int between = OK(posix_openpt(O_RDWR | O_NOCTTY));
	high.master = OK(open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK));
	close(first);
	close(between);
	OK(unlockpt(low.master));
	OK(unlockpt(high.master));
	low.slave = OK(open("/dev/pts/1", O_RDWR | O_NOCTTY));
	high.slave = OK(open("/dev/pts/3", O_RDWR | O_NOCTTY));
	put(high.master, "high\n");
	put(low.master, "low\n");
	ready_and_hold();
	CHECK(strcmp(ptsname(low.master), "/dev/pts/1") == 0);
	CHECK(strcmp(ptsname(high.master), "/dev/pts/3") == 0);
	snprintf(link, sizeof link, "/proc/self/fd/%d", high.slave);
	char name[64] = "";
	OK(readlink(link, name, sizeof name));
	CHECK(strcmp(name, "/dev/pts/3") == 0);
	take(high.slave, "high\n");
	take(low.slave, "low\n");
	first = OK(posix_openpt(O_RDWR | O_NOCTTY));
	CHECK(strcmp(ptsname(first), "/dev/pts/0") == 0);
	pass();
}
