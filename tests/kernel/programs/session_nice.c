/* The nice value of a session's autogroup. */
#include "selfcheck.h"

static int autogroup_nice(void)
{
	char line[128] = "";
	int fd = open("/proc/self/autogroup", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0; /* a kernel without */
	OK(read(fd, line, sizeof line - 1));
	close(fd);
	char *nice = strstr(line, "nice ");
	return nice ? atoi(nice + 5) : 0;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct gate gate;
	gate_make(&gate);
	pid_t child = OK(fork());
	if (child == 0) {
		OK(setsid());
		int fd = open("/proc/self/autogroup", O_WRONLY | O_CLOEXEC);
		if (fd >= 0) {
			SAME(write(fd, "7", 1), 1);
			close(fd);
		}
		int before = autogroup_nice();
		CHECK(fd < 0 || before == 7);
		gate_child_is_set(&gate);
		hold();
		SAME(autogroup_nice(), before);
		_exit(0);
	}
	gate_wait(&gate, 1);
	ready_and_hold();
	SAME(autogroup_nice(), 0);
	reap(child);
	pass();
}
