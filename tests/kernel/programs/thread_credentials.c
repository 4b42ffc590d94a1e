/* Credentials are each thread's own. */
#include "selfcheck.h"
#include <pthread.h>

static volatile int stage;
static void *work(void *argument)
{
	OK(syscall(SYS_setresgid, 2001, 2001, 2001)); /* the bare call changes this thread alone */
	OK(syscall(SYS_setresuid, 1001, 1001, 1001));
	set(&stage, 1);
	await(&stage, 2);
	SAME(syscall(SYS_getuid), 1001);
	SAME(syscall(SYS_getegid), 2001);
	FAILS(syscall(SYS_setuid, 0), EPERM);
	return argument;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	pthread_t thread;
	pthread_create(&thread, NULL, work, NULL);
	await(&stage, 1);
	ready_and_hold();
	SAME(getuid(), 0);
	SAME(getegid(), 0);
	set(&stage, 2);
	pthread_join(thread, NULL);
	pass();
}
