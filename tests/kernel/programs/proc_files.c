/* Descriptors into /proc/self and of a child's entry. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	char text[256] = "", path[64];
	pid_t child = OK(fork());
	if (child == 0) {
		hold();
		_exit(0);
	}
	int comm = OK(open("/proc/self/comm", O_RDWR)), meminfo = OK(open("/proc/meminfo", O_RDONLY));
	snprintf(path, sizeof path, "/proc/%d/cmdline", child);
	int other = OK(open(path, O_RDONLY));
	int init = OK(open("/proc/1/status", O_RDONLY));
	struct stat was, is;
	int directory = OK(open("/proc/self/fd", O_RDONLY | O_DIRECTORY));
	ready_and_hold();
	SAME(write(comm, "renamed", 7), 7);
	OK(prctl(PR_GET_NAME, text));
	CHECK(strcmp(text, "renamed") == 0);
	CHECK(pread(meminfo, text, 8, 0) == 8 && memcmp(text, "MemTotal", 8) == 0);
	CHECK(OK(pread(other, text, sizeof text, 0)) >= 0);
	OK(faccessat(directory, "0", F_OK, AT_SYMLINK_NOFOLLOW));
	OK(fstat(init, &was));
	OK(stat("/proc/1/status", &is));
	SAME(was.st_ino, is.st_ino);
	CHECK(pread(init, text, 5, 0) == 5 && memcmp(text, "Name:", 5) == 0);
	reap(child);
	pass();
}
