/* Working directories that were removed, also while a descriptor leads there, and while others inherit them. */
#include "selfcheck.h"

static void is_removed(void)
{
	char path[PATH_MAX];
	struct stat status;
	errno = 0;
	CHECK(!getcwd(path, sizeof path));
	SAME(errno, ENOENT);
	OK(stat(".", &status));
	SAME(status.st_mode & 07777, 0751);
	FAILS(open("new", O_CREAT | O_WRONLY, 0600), ENOENT);
}

int main(int argc, char **argv)
{
	struct gate gate;
	struct stat here, there;
	begin(argc, argv);
	gate_make(&gate);
	umask(0);
	OK(mkdir(in_directory("removed"), 0751));
	OK(chdir(in_directory("removed")));
	int fd = OK(open(".", O_RDONLY | O_DIRECTORY));
	OK(rmdir(in_directory("removed")));
	pid_t inherits = OK(fork());
	if (inherits == 0) {
		gate_child_is_set(&gate);
		hold();
		is_removed();
		_exit(0);
	}
	pid_t leaves = OK(fork());
	if (leaves == 0) {
		char path[PATH_MAX];
		OK(chdir("/"));
		gate_child_is_set(&gate);
		hold();
		CHECK(getcwd(path, sizeof path) && strcmp(path, "/") == 0);
		_exit(0);
	}
	gate_wait(&gate, 2);
	is_removed();
	ready_and_hold();
	is_removed();
	OK(fstat(fd, &there));
	OK(stat(".", &here));
	SAME(here.st_ino, there.st_ino);
	reap(inherits);
	reap(leaves);
	pass();
}
