/* Descriptors of the namespaces that a process is in, and of one that it has left. */
#include "selfcheck.h"

static const char *const kinds[] = {"net", "mnt", "uts", "ipc", "pid", "user", "cgroup"};
enum { KINDS = sizeof kinds / sizeof *kinds };

static void is_mine(int fd, const char *kind)
{
	struct stat here, there;
	char path[64];
	snprintf(path, sizeof path, "/proc/self/ns/%s", kind);
	OK(stat(path, &here));
	OK(fstat(fd, &there));
	if (here.st_ino != there.st_ino)
		FAIL("another %s namespace: %lu, not %lu", kind, there.st_ino, here.st_ino);
}

int main(int argc, char **argv)
{
	int fds[KINDS];
	begin(argc, argv);
	for (int i = 0; i < KINDS; i++) {
		char path[64];
		snprintf(path, sizeof path, "/proc/self/ns/%s", kinds[i]);
		fds[i] = OK(open(path, O_RDONLY | O_CLOEXEC));
		is_mine(fds[i], kinds[i]);
	}
	struct stat left, now;
	int outer = -1;
	if (argc == 3) { /* leaves */
		outer = OK(dup(fds[0]));
		OK(fstat(outer, &left));
		OK(unshare(CLONE_NEWNET));
		close(fds[0]);
		SAME(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), fds[0]);
	}
	ready_and_hold();
	if (outer >= 0) {
		OK(fstat(outer, &now));
		SAME(now.st_ino, left.st_ino);
		OK(fstat(fds[0], &now));
		CHECK(now.st_ino != left.st_ino);
	}
	for (int i = 0; i < KINDS; i++)
		is_mine(fds[i], kinds[i]);
	OK(setns(fds[0], CLONE_NEWNET));
	pass();
}
