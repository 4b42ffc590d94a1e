/* Two processes with one working directory, root and umask. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	char cwd[PATH_MAX];
	volatile int *stage = shared(PAGE);
	OK(chdir(test_directory));
	umask(027);
	pid_t child = OK(syscall(SYS_clone, CLONE_FS | SIGCHLD, NULL, NULL, NULL, 0));
	if (child == 0) {
		set(stage, 1);
		await(stage, 2);
		OK(chdir("/usr"));
		SAME(umask(0123), 027);
		set(stage, 3);
		_exit(0);
	}
	await(stage, 1);
	ready_and_hold();
	CHECK(strcmp(OK((char *)(getcwd(cwd, sizeof cwd) ?: (char *)-1)), test_directory) == 0);
	set(stage, 2);
	await(stage, 3);
	CHECK(getcwd(cwd, sizeof cwd) && strcmp(cwd, "/usr") == 0);
	SAME(umask(0), 0123);
	reap(child);
	pass();
}
