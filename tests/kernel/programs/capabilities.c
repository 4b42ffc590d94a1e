/* Capability sets: effective, permitted, inheritable, ambient, bounding; securebits; no_new_privs; each thread's. */
#include "selfcheck.h"
#include <linux/capability.h>
#include <linux/securebits.h>
#include <pthread.h>

static volatile int stage;
static char *const fields[] = {"CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:"};

static void note(char into[6][32])
{
	char path[64];
	snprintf(path, sizeof path, "/proc/self/task/%d/status", gettid());
	for (int i = 0; i < 6; i++)
		snprintf(into[i], 32, "%s", proc_field(path, fields[i]));
}

static void *lesser(void *argument)
{
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2] = {{1 << CAP_CHOWN | 1 << CAP_NET_RAW, 1 << CAP_CHOWN | 1 << CAP_NET_RAW | 1 << CAP_KILL, 0}};
	OK(syscall(SYS_capset, &header, data));
	OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	char before[6][32], after[6][32];
	note(before);
	set(&stage, 1);
	await(&stage, 2);
	note(after);
	for (int i = 0; i < 6; i++)
		if (strcmp(before[i], after[i]) != 0)
			FAIL("%s of the thread is %s, not %s", fields[i], after[i], before[i]);
	return argument;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	OK(prctl(PR_CAPBSET_DROP, CAP_SYS_BOOT));
	OK(prctl(PR_CAPBSET_DROP, CAP_WAKE_ALARM));
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2];
	OK(syscall(SYS_capget, &header, data));
	data[0].inheritable = 1 << CAP_NET_BIND_SERVICE | 1 << CAP_SYS_NICE;
	OK(syscall(SYS_capset, &header, data));
	OK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0));
	int bits = SECBIT_KEEP_CAPS | SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_NOROOT;
	OK(prctl(PR_SET_SECUREBITS, bits));
	char before[6][32], after[6][32];
	pthread_t thread;
	pthread_create(&thread, NULL, lesser, NULL);
	await(&stage, 1);
	note(before);
	ready_and_hold();
	note(after);
	for (int i = 0; i < 6; i++)
		if (strcmp(before[i], after[i]) != 0)
			FAIL("%s is %s, not %s", fields[i], after[i], before[i]);
	SAME(prctl(PR_GET_SECUREBITS), bits);
	SAME(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
	set(&stage, 2);
	pthread_join(thread, NULL);
	pass();
}
