/* Threads that share with each other what is not that of the process: descriptors, directories; a supervisor. */
#include "selfcheck.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>

static pthread_barrier_t set_up, go_on;

static void filter(void)
{
	struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW), ask;
	ask = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
		ask,
		allow,
	};
	struct sock_fprog program = {4, code};
	OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	OK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
}

static void *follow(void *unused)
{
	pthread_barrier_wait(&set_up);
	pthread_barrier_wait(&go_on);
	return unused;
}

static void *work(void *argument)
{
	intptr_t number = (intptr_t)argument;
	pthread_t follower;
	if (number == 2)
		filter();
	else
		OK(unshare(number ? CLONE_FS : CLONE_FILES));
	SAME(pthread_create(&follower, NULL, follow, NULL), 0);
	pthread_barrier_wait(&set_up);
	pthread_barrier_wait(&go_on);
	SAME(pthread_join(follower, NULL), 0);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[3];
	begin(argc, argv);
	int first = argc == 3 ? 2 : 0, behind = argc == 3 ? 3 : 2;
	pthread_barrier_init(&set_up, NULL, 2 * (behind - first) + 1);
	pthread_barrier_init(&go_on, NULL, 2 * (behind - first) + 1);
	for (intptr_t i = first; i < behind; i++)
		SAME(pthread_create(&threads[i], NULL, work, (void *)i), 0);
	pthread_barrier_wait(&set_up);
	ready_and_hold();
	pthread_barrier_wait(&go_on);
	for (int i = first; i < behind; i++)
		SAME(pthread_join(threads[i], NULL), 0);
	pass();
}
