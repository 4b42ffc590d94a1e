/* Personality, umask, transparent huge pages off, what core dumps hold; child's own of each. */
#include "selfcheck.h"
#include <sys/personality.h>

static void dumps(const char *bits)
{
	int fd = OK(open("/proc/self/coredump_filter", O_WRONLY | O_CLOEXEC));
	SAME(write(fd, bits, strlen(bits)), strlen(bits));
	close(fd);
}

static long dumped(void)
{
	char bits[16] = "";
	int fd = OK(open("/proc/self/coredump_filter", O_RDONLY | O_CLOEXEC));
	OK(read(fd, bits, sizeof bits - 1));
	close(fd);
	return strtol(bits, NULL, 16);
}

static void check(unsigned long persona, mode_t mask, int huge_off, long core)
{
	SAME(dumped(), core);
	SAME(personality(0xffffffff), persona);
	mode_t now = umask(0);
	SAME(now, mask);
	SAME(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), huge_off);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct gate gate;
	gate_make(&gate);
	OK(personality(PER_LINUX | ADDR_NO_RANDOMIZE));
	umask(0137);
	dumps("0x11");
	pid_t child = OK(fork());
	if (child == 0) {
		OK(personality(PER_LINUX | UNAME26));
		umask(0011);
		OK(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
		dumps("0x7f");
		gate_child_is_set(&gate);
		hold();
		check(PER_LINUX | UNAME26, 0011, 1, 0x7f);
		_exit(0);
	}
	gate_wait(&gate, 1);
	mode_t mask = umask(0);
	publish("ready", "");
	umask(mask);
	hold();
	mask = umask(0137);
	SAME(mask, 0137);
	check(PER_LINUX | ADDR_NO_RANDOMIZE, 0137, 0, 0x11);
	reap(child);
	pass();
}
