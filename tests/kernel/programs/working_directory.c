/* Working directories: one's own, one with a space and a newline in its name. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct gate gate;
	gate_make(&gate);
	char cwd[PATH_MAX], want[PATH_MAX];
	OK(mkdir(in_directory("a \n b"), 0755));
	OK(mkdir(in_directory("a \n b/deep"), 0755));
	pid_t child = OK(fork());
	if (child == 0) {
		OK(chdir(in_directory("a \n b/deep")));
		CHECK(getcwd(want, sizeof want));
		gate_child_is_set(&gate);
		hold();
		CHECK(getcwd(cwd, sizeof cwd));
		if (strcmp(cwd, want) != 0)
			FAIL("the working directory is %s, not %s", cwd, want);
		int fd = OK(open("../made", O_CREAT | O_WRONLY, 0644));
		close(fd);
		OK(access(in_directory("a \n b/made"), F_OK));
		OK(unlink("../made"));
		_exit(0);
	}
	gate_wait(&gate, 1);
	OK(chdir("/usr"));
	ready_and_hold();
	CHECK(getcwd(cwd, sizeof cwd) && strcmp(cwd, "/usr") == 0);
	reap(child);
	pass();
}
