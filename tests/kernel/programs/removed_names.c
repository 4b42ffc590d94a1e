/* A working directory that was removed, and a descriptor of it: the same one; /proc goes on to show its name. */
#include "selfcheck.h"

static char before[1024], taken[1024];

static void check(int fd)
{
	struct stat here, there;
	char now[1024] = "";
	OK(readlink("/proc/self/cwd", now, sizeof now - 1));
	if (strcmp(now, before) != 0)
		FAIL("the working directory was %s and is %s", before, now);
	OK(stat(".", &here));
	OK(fstat(fd, &there));
	SAME(here.st_ino, there.st_ino);
	SAME(here.st_dev, there.st_dev);
	SAME(here.st_mode & 07777, 0751);
	FAILS(openat(fd, "new", O_CREAT | O_WRONLY, 0600), ENOENT);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct gate gate;
	gate_make(&gate);
	OK(mkdir(in_directory("gone"), 0751));
	OK(chmod(in_directory("gone"), 0751));
	int fd = OK(open(in_directory("gone"), O_RDONLY | O_DIRECTORY));
	OK(chdir(in_directory("gone")));
	OK(rmdir(in_directory("gone")));
	OK(readlink("/proc/self/cwd", before, sizeof before - 1));
	pid_t child = OK(fork());
	if (!child) { /* its name is somebody else's by now */
		OK(mkdir(in_directory("taken"), 0700));
		OK(chdir(in_directory("taken")));
		OK(rmdir(in_directory("taken")));
		OK(mkdir(in_directory("taken"), 0700));
		gate_child_is_set(&gate);
		hold();
		struct stat here, there;
		OK(stat(".", &here));
		OK(stat(in_directory("taken"), &there));
		CHECK(here.st_ino != there.st_ino);
		SAME(readlink("/proc/self/cwd", taken, sizeof taken - 1) > 10, 1);
		CHECK(strcmp(taken + strlen(taken) - 10, " (deleted)") == 0);
		_exit(0);
	}
	gate_wait(&gate, 1);
	ready_and_hold();
	check(fd);
	reap(child);
	pass();
}
