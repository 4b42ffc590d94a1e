/* Landlock restricts what the main thread, or a thread of its own, may do. */
#include "selfcheck.h"
#include <linux/landlock.h>
#include <pthread.h>

static pthread_barrier_t set_up;

static void restrict_self(void)
{
	struct landlock_ruleset_attr rules = {.handled_access_fs = LANDLOCK_ACCESS_FS_MAKE_BLOCK};
	int ruleset = (int)syscall(SYS_landlock_create_ruleset, &rules, sizeof rules, 0);
	if (ruleset < 0) {
		publish("landlock", "none"); /* a kernel without it */
		return;
	}
	OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	OK(syscall(SYS_landlock_restrict_self, ruleset, 0));
	close(ruleset);
}

static void *work(void *argument)
{
	restrict_self();
	pthread_barrier_wait(&set_up);
	hold();
	return argument;
}

int main(int argc, char **argv)
{
	pthread_t thread;
	begin(argc, argv);
	if (argc > 2 && strcmp(argv[2], "thread") == 0) {
		pthread_barrier_init(&set_up, NULL, 2);
		SAME(pthread_create(&thread, NULL, work, NULL), 0);
		pthread_barrier_wait(&set_up);
	} else
		restrict_self();
	ready_and_hold();
	pass();
}
