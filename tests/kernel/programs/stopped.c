/* Stopped children: one whose stop was waited for, one whose stop is still to be told. */
#include "selfcheck.h"

static char state(pid_t pid)
{
	char path[64], line[512] = "";
	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	int fd = OK(open(path, O_RDONLY));
	OK(read(fd, line, sizeof line - 1));
	close(fd);
	return strrchr(line, ')')[2];
}

static pid_t stopped_child(void)
{
	pid_t child = OK(fork());
	if (child == 0) {
		raise(SIGSTOP);
		_exit(21);
	}
	return child;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	int status;
	siginfo_t info;
	pid_t told = stopped_child(), untold = stopped_child();
	SAME(waitpid(told, &status, WUNTRACED), told);
	SAME(WSTOPSIG(status), SIGSTOP);
	OK(waitid(P_PID, untold, &info, WSTOPPED | WNOWAIT));
	ready_and_hold();
	SAME(state(told), 'T');
	SAME(state(untold), 'T');
	SAME(waitpid(untold, &status, WUNTRACED | WNOHANG), untold);
	CHECK(WIFSTOPPED(status));
	SAME(WSTOPSIG(status), SIGSTOP);
	for (int i = 0; i < 2; i++) {
		pid_t child = i ? told : untold;
		OK(kill(child, SIGCONT));
		SAME(waitpid(child, &status, 0), child);
		CHECK(WIFEXITED(status));
		SAME(WEXITSTATUS(status), 21);
	}
	pass();
}
