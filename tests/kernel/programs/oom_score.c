/* The oom score adjustment of two processes. */
#include "selfcheck.h"

static void adjust(const char *value)
{
	int fd = OK(open("/proc/self/oom_score_adj", O_WRONLY));
	SAME(write(fd, value, strlen(value)), (ssize_t)strlen(value));
	close(fd);
}

static void check(const char *want)
{
	char value[16] = "";
	int fd = OK(open("/proc/self/oom_score_adj", O_RDONLY));
	OK(read(fd, value, sizeof value - 1));
	close(fd);
	SAME(atoi(value), atoi(want));
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct gate gate;
	gate_make(&gate);
	adjust("300");
	pid_t child = OK(fork());
	if (child == 0) {
		adjust("777");
		gate_child_is_set(&gate);
		hold();
		check("777");
		_exit(0);
	}
	gate_wait(&gate, 1);
	ready_and_hold();
	check("300");
	reap(child);
	pass();
}
