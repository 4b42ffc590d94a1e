/* A process whose root is another directory, beside one whose root is not. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct gate gate;
	gate_make(&gate);
	volatile int *stage = shared(PAGE);
	OK(mkdir(in_directory("root"), 0755));
	OK(mkdir(in_directory("root/inner"), 0755));
	pid_t child = OK(fork());
	if (child == 0) {
		char cwd[PATH_MAX];
		struct stat root, above;
		OK(chroot(in_directory("root")));
		OK(chdir("/inner"));
		gate_child_is_set(&gate);
		await(stage, 1);
		OK(stat("/", &root));
		OK(stat("/..", &above));
		set(stage, root.st_ino == above.st_ino && access("/inner", F_OK) == 0 && access("/usr", F_OK) < 0 &&
				       getcwd(cwd, sizeof cwd) && strcmp(cwd, "/inner") == 0
			       ? 2
			       : 3);
		_exit(0);
	}
	gate_wait(&gate, 1);
	ready_and_hold();
	CHECK(access("/usr", F_OK) == 0);
	set(stage, 1);
	reap(child);
	SAME(*stage, 2);
	pass();
}
