/* A process of some size without children sees none, and no signal of one, whatever is done to save its memory. */
#include "selfcheck.h"
#include <pthread.h>

static volatile int over, signals;

static void on_child(int signal)
{
	(void)signal;
	signals++;
}

static void childless(void)
{
	if (waitpid(-1, NULL, WNOHANG) != -1)
		FAIL("there is a child");
	SAME(errno, ECHILD);
	siginfo_t info;
	FAILS(waitid(P_ALL, 0, &info, WEXITED | WSTOPPED | WCONTINUED | WNOHANG), ECHILD);
}

static void *look(void *argument)
{
	while (!over)
		childless();
	return argument;
}

int main(int argc, char **argv)
{
	pthread_t thread;
	begin(argc, argv);
	struct sigaction action = {.sa_handler = on_child};
	OK(sigaction(SIGCHLD, &action, NULL));
	char *memory = private(8 << 20);
	fill(memory, 8 << 20, 1);
	SAME(pthread_create(&thread, NULL, look, NULL), 0);
	ready_and_hold();
	over = true;
	SAME(pthread_join(thread, NULL), 0);
	childless();
	SAME(signals, 0);
	filled(memory, 8 << 20, 1);
	char children[64] = "", path[64];
	snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
	int fd = OK(open(path, O_RDONLY | O_CLOEXEC));
	SAME(read(fd, children, sizeof children - 1), 0);
	close(fd);
	pass();
}
