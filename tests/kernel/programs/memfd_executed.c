/* A memfd can still be executed, though it is open and mapped for writing: only opening it by a path forbids that. */
#include "selfcheck.h"

static int runs(int fd)
{
	char *const argv[] = {"true", NULL}, *const environment[] = {NULL};
	pid_t child = OK(fork());
	if (!child) {
		syscall(SYS_execveat, fd, "", argv, environment, AT_EMPTY_PATH);
		_exit(errno);
	}
	int status;
	SAME(OK(waitpid(child, &status, 0)), child);
	return status;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	static const char script[] = "#!/bin/true\n";
	int fd = OK(memfd_create("program", 0)), opened = OK(memfd_create("opened", 0));
	SAME(write(fd, script, sizeof script - 1), sizeof script - 1);
	SAME(write(opened, script, sizeof script - 1), sizeof script - 1);
	OK(lseek(fd, 3, SEEK_SET));
	char path[64];
	snprintf(path, sizeof path, "/proc/self/fd/%d", opened);
	int writer = OK(open(path, O_RDWR | O_APPEND));
	OK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	SAME(runs(fd), 0);
	SAME(WEXITSTATUS(runs(opened)), ETXTBSY);
	ready_and_hold();
	SAME(lseek(fd, 0, SEEK_CUR), 3);
	SAME(runs(fd), 0);
	SAME(WEXITSTATUS(runs(opened)), ETXTBSY);
	CHECK(fcntl(writer, F_GETFL) & O_APPEND);
	CHECK(!(fcntl(opened, F_GETFL) & O_APPEND));
	pass();
}
