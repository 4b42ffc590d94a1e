/* Seccomp filters: chains of them, of processes and of threads, and what threads have in common of them. */
#include "filters.h"
#include <pthread.h>

static pthread_barrier_t set_up, go_on;
static const int deadly[] = {SYS_get_robust_list, SYS_personality, SYS_sched_getattr, SYS_sched_setattr, SYS_ioprio_get,
			     SYS_close_range,	  SYS_setresuid,   SYS_timer_create,  SYS_socketpair,	 SYS_dup3};

static void has(int filters)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/self/task/%d/status", gettid());
	SAME(atoi(proc_field(path, "Seccomp:")), filters ? 2 : 0);
	SAME(atoi(proc_field(path, "Seccomp_filters:")), filters);
}

static void fails_with(int call, int error)
{
	errno = 0;
	FAILS(syscall(call, 0, 0, 0), error);
}

static void *grandchild(void *unused)
{
	pthread_barrier_wait(&set_up);
	pthread_barrier_wait(&go_on);
	fails_with(SYS_getpgid, 103);
	has(4);
	pthread_barrier_wait(&go_on);
	pthread_barrier_wait(&go_on);
	fails_with(SYS_getsid, 104);
	return unused;
}

static void *filters_more(void *unused)
{
	pthread_t thread;
	SAME(filter_errno(SECCOMP_FILTER_FLAG_LOG, SYS_getpgid, 103), 0);
	SAME(pthread_create(&thread, NULL, grandchild, NULL), 0);
	pthread_barrier_wait(&set_up);
	pthread_barrier_wait(&go_on);
	fails_with(SYS_getpgid, 103);
	fails_with(SYS_getppid, 101);
	has(4);
	pthread_barrier_wait(&go_on);
	/* Works only if the filters of all others are the beginning of this thread's chain. */
	SAME(filter_errno(SECCOMP_FILTER_FLAG_TSYNC, SYS_getsid, 104), 0);
	pthread_barrier_wait(&go_on);
	SAME(pthread_join(thread, NULL), 0);
	return unused;
}

static void *plain(void *unused)
{
	pthread_barrier_wait(&set_up);
	pthread_barrier_wait(&go_on);
	OK(getpgid(0));
	fails_with(SYS_getppid, 101);
	has(3);
	pthread_barrier_wait(&go_on);
	pthread_barrier_wait(&go_on);
	fails_with(SYS_getsid, 104);
	fails_with(SYS_getpgid, 103);
	return unused;
}

int main(int argc, char **argv)
{
	pthread_t threads[2];
	struct gate gate;
	pid_t child;
	begin(argc, argv);
	gate_make(&gate);
	has(0);
	SAME(filter_errno(0, SYS_getppid, 101), 0); /* as root, and without no_new_privs */
	SAME(filter_errno(SECCOMP_FILTER_FLAG_LOG, SYS_getpriority, 102), 0);
	/* A tape that is played on when its tracer is dead would run into these. */
	unsigned end = argc < 3 ? SECCOMP_RET_KILL_PROCESS : SECCOMP_RET_LOG;
	SAME(filter_calls(0, deadly, sizeof deadly / sizeof *deadly, end), 0);
	child = OK(fork());
	if (child == 0) {
		OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
		OK(setgid(65534));
		OK(setuid(65534));
		OK(filter_errno(0, SYS_getpgid, 105));
		gate_child_is_set(&gate);
		hold();
		fails_with(SYS_getpgid, 105);
		fails_with(SYS_getppid, 101);
		fails_with(SYS_getpriority, 102);
		SAME(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
		SAME(getuid(), 65534);
		has(4);
		FAILS(setuid(0), EPERM);
		syscall(SYS_personality, 0xffffffff);
		_exit(0);
	}
	gate_wait(&gate, 1);
	pthread_barrier_init(&set_up, NULL, 4);
	pthread_barrier_init(&go_on, NULL, 4);
	SAME(pthread_create(&threads[0], NULL, filters_more, NULL), 0);
	SAME(pthread_create(&threads[1], NULL, plain, NULL), 0);
	pthread_barrier_wait(&set_up);
	ready_and_hold();
	has(3);
	fails_with(SYS_getppid, 101);
	fails_with(SYS_getpriority, 102);
	SAME(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
	pthread_barrier_wait(&go_on);
	pthread_barrier_wait(&go_on);
	pthread_barrier_wait(&go_on);
	fails_with(SYS_getsid, 104);
	for (int i = 0; i < 2; i++)
		SAME(pthread_join(threads[i], NULL), 0);
	int status;
	SAME(OK(waitpid(child, &status, 0)), child);
	if (argc < 3)
		SAME(WTERMSIG(status), SIGSYS);
	else
		SAME(status, 0);
	pass();
}
