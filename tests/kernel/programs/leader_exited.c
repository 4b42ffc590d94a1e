/* A process whose first thread has ended while another goes on: the leader is a zombie in its own group. */
#include "selfcheck.h"
#include <pthread.h>

static pid_t tgid;
enum { BYTES = 8 << 20 };
static char *memory;

static void *survivor(void *argument)
{
	char path[64];
	(void)argument;
	snprintf(path, sizeof path, "/proc/self/task/%d/stat", tgid);
	for (bool zombie = false; !zombie;) {
		char line[512] = "";
		int fd = OK(open(path, O_RDONLY));
		OK(read(fd, line, sizeof line - 1));
		close(fd);
		zombie = strstr(line, ") Z ") != NULL;
		sched_yield();
	}
	ready_and_hold();
	SAME(getpid(), tgid);
	filled(memory, BYTES, 11);
	CHECK(gettid() != tgid);
	CHECK(proc_field("/proc/self/status", "State:")[0] == 'Z');
	pass();
}

int main(int argc, char **argv)
{
	pthread_t thread;
	begin(argc, argv);
	tgid = getpid();
	memory = private(BYTES);
	fill(memory, BYTES, 11);
	SAME(pthread_create(&thread, NULL, survivor, NULL), 0);
	pthread_exit(NULL);
}
