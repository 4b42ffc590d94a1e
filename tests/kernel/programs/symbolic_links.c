/* Symbolic links that are open themselves (O_PATH | O_NOFOLLOW), with a name and without. */
#include "selfcheck.h"

static void leads_to(int fd, const char *target)
{
	char found[256] = "";
	struct stat status;
	OK(fstat(fd, &status));
	CHECK(S_ISLNK(status.st_mode));
	SAME(status.st_uid, 1234);
	OK(readlinkat(fd, "", found, sizeof found - 1));
	CHECK(strcmp(found, target) == 0);
}

int main(int argc, char **argv)
{
	struct stat one, two;
	char before[512] = "", now[512] = "";
	begin(argc, argv);
	OK(symlink("some/where", in_directory("kept")));
	OK(symlink("no/where", in_directory("removed")));
	OK(lchown(in_directory("kept"), 1234, 77));
	OK(lchown(in_directory("removed"), 1234, 77));
	int kept = OK(open(in_directory("kept"), O_PATH | O_NOFOLLOW));
	int removed = OK(open(in_directory("removed"), O_PATH | O_NOFOLLOW));
	int again = OK(open(in_directory("removed"), O_PATH | O_NOFOLLOW));
	OK(unlink(in_directory("removed")));
	OK(readlink("/proc/self/fd/4", before, sizeof before - 1));
	ready_and_hold();
	leads_to(kept, "some/where");
	leads_to(removed, "no/where");
	leads_to(again, "no/where");
	OK(fstat(removed, &one));
	OK(fstat(again, &two));
	SAME(one.st_ino, two.st_ino);
	OK(readlink("/proc/self/fd/4", now, sizeof now - 1));
	CHECK(strcmp(before, now) == 0);
	pass();
}
