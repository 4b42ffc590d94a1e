/* Keyrings of a thread, a process and a session; empty ones return, keys have numbers of their own. */
#include "selfcheck.h"
#include <linux/keyctl.h>
#include <pthread.h>

static pthread_barrier_t set_up, go_on;

static long keyring(int which, int make) { return syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, which, make); }

static void put_key(int where)
{
	OK(syscall(SYS_add_key, "user", "orch-test", "secret", 6L, where));
}

static void *work(void *argument)
{
	OK(keyring(KEY_SPEC_THREAD_KEYRING, 1));
	pthread_barrier_wait(&set_up);
	pthread_barrier_wait(&go_on);
	OK(keyring(KEY_SPEC_THREAD_KEYRING, 0));
	OK(keyring(KEY_SPEC_PROCESS_KEYRING, 0));
	return argument;
}

int main(int argc, char **argv)
{
	pthread_t thread;
	begin(argc, argv);
	const char *kind = argc > 2 ? argv[2] : "empty";
	if (keyring(KEY_SPEC_PROCESS_KEYRING, 1) < 0) {
		SAME(errno, ENOSYS); /* a kernel without keys */
		publish("keys", "none");
		ready_and_hold();
		pass();
	}
	if (strcmp(kind, "session") == 0) {
		OK(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL));
		put_key(KEY_SPEC_SESSION_KEYRING);
	} else if (strcmp(kind, "process") == 0)
		put_key(KEY_SPEC_PROCESS_KEYRING);
	else if (strcmp(kind, "thread") == 0)
		put_key(KEY_SPEC_THREAD_KEYRING);
	pthread_barrier_init(&set_up, NULL, 2);
	pthread_barrier_init(&go_on, NULL, 2);
	SAME(pthread_create(&thread, NULL, work, NULL), 0);
	pthread_barrier_wait(&set_up);
	ready_and_hold();
	OK(keyring(KEY_SPEC_PROCESS_KEYRING, 0));
	if (strcmp(kind, "thread") != 0)
		FAILS(keyring(KEY_SPEC_THREAD_KEYRING, 0), ENOKEY);
	pthread_barrier_wait(&go_on);
	SAME(pthread_join(thread, NULL), 0);
	pass();
}
