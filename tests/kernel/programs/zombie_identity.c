/* A zombie keeps its name, its session and its group, as the leader of a session that lives on. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct gate gate;
	gate_make(&gate);
	volatile int *stage = shared(PAGE), *member = stage + 1;
	pid_t leader = OK(fork());
	if (leader == 0) {
		OK(setsid());
		OK(prctl(PR_SET_NAME, "was leader"));
		pid_t child = OK(fork());
		if (child == 0) {
			gate_child_is_set(&gate);
			hold();
			SAME(getsid(0), getpgrp());
			await(stage, 1);
			_exit(0);
		}
		*member = child;
		_exit(33);
	}
	siginfo_t info;
	gate_wait(&gate, 1);
	OK(waitid(P_PID, leader, &info, WEXITED | WNOWAIT));
	ready_and_hold();
	char path[64], line[512] = "";
	snprintf(path, sizeof path, "/proc/%d/stat", leader);
	int fd = OK(open(path, O_RDONLY));
	OK(read(fd, line, sizeof line - 1));
	close(fd);
	if (!strstr(line, "(was leader) Z "))
		FAIL("the zombie is %s", line);
	SAME(getsid(*member), leader);
	SAME(getpgid(*member), leader);
	SAME(getsid(leader), leader);
	SAME(getpgid(leader), leader);
	set(stage, 1);
	int status;
	SAME(waitpid(leader, &status, 0), leader);
	SAME(WEXITSTATUS(status), 33);
	pass();
}
