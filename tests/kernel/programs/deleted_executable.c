/* A program whose file was removed, or replaced by another one as an upgrade does it, while it runs. */
#include "selfcheck.h"
#include <sys/sendfile.h>

static void copy(const char *from, const char *to)
{
	struct stat status;
	int source = OK(open(from, O_RDONLY | O_CLOEXEC)), target = OK(open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755));
	OK(fstat(source, &status));
	SAME(sendfile(target, source, NULL, status.st_size), status.st_size);
	close(source);
	close(target);
}

static void is_deleted(void)
{
	char link[1024] = "";
	OK(readlink("/proc/self/exe", link, sizeof link - 1));
	CHECK(strstr(link, " (deleted)"));
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	const char *own = in_directory("program");
	if (argc == 3) { /* replaced | removed */
		copy("/proc/self/exe", own);
		OK(execl(own, own, argv[1], argv[2], "copy", NULL));
	}
	if (strcmp(argv[3], "again") == 0)
		pass();
	if (strcmp(argv[2], "replaced") == 0) {
		copy("/bin/true", in_directory("other"));
		OK(rename(in_directory("other"), own));
	} else {
		OK(unlink(own));
	}
	is_deleted();
	ready_and_hold();
	is_deleted();
	pid_t child = OK(fork());
	if (child == 0) {
		is_deleted();
		_exit(0);
	}
	reap(child);
	OK(execl("/proc/self/exe", own, argv[1], argv[2], "again", NULL));
}
