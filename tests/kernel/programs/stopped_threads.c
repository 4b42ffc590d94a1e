/* A stopped process with threads: all of it is stopped, and all of it goes on. */
#include "selfcheck.h"
#include <dirent.h>
#include <pthread.h>

static volatile int *counter;
static void *count(void *argument)
{
	(void)argument;
	for (;;) {
		__atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST);
		usleep(1000);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	counter = shared(PAGE);
	pid_t child = OK(fork());
	int status;
	if (child == 0) {
		pthread_t thread;
		pthread_create(&thread, NULL, count, NULL);
		pthread_create(&thread, NULL, count, NULL);
		pause();
	}
	while (*counter < 5)
		sched_yield();
	OK(kill(child, SIGSTOP));
	SAME(waitpid(child, &status, WUNTRACED), child);
	int before = *counter;
	ready_and_hold();
	struct dirent *entry;
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/task", child);
	DIR *tasks = opendir(path);
	while ((entry = readdir(tasks))) {
		if (entry->d_name[0] == '.')
			continue;
		char stat[400];
		snprintf(stat, sizeof stat, "/proc/%d/task/%s/status", child, entry->d_name);
		SAME(proc_field(stat, "State:")[0], 'T');
	}
	closedir(tasks);
	SAME(*counter, before);
	OK(kill(child, SIGCONT));
	SAME(waitpid(child, &status, WCONTINUED), child);
	CHECK(WIFCONTINUED(status));
	while (*counter < before + 5)
		sched_yield();
	OK(kill(child, SIGKILL));
	SAME(waitpid(child, &status, 0), child);
	pass();
}
