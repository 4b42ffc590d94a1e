/* System calls that become signals (syscall user dispatch): by a selector, and for a range of code; by thread. */
#include "selfcheck.h"
#include <pthread.h>
#include <sys/syscall.h>

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif
#define ON 1
#define ALLOW 0
#define BLOCK 1

static volatile char selector = ALLOW;
static volatile int caught, call_caught;
static pthread_barrier_t set_up, go_on;

static void on_system_call(int signal, siginfo_t *info, void *context)
{
	(void)signal, (void)context;
	selector = ALLOW;
	caught++;
	call_caught = info->si_syscall;
}

static int tries(void)
{
	int before = caught;
	selector = BLOCK;
	syscall(SYS_getpid);
	selector = ALLOW;
	return caught - before;
}

static void *free_thread(void *argument)
{
	pthread_barrier_wait(&set_up);
	pthread_barrier_wait(&go_on);
	SAME(tries(), 0);
	return argument;
}

int main(int argc, char **argv)
{
	pthread_t thread;
	begin(argc, argv);
	struct sigaction action = {.sa_sigaction = on_system_call, .sa_flags = SA_SIGINFO};
	OK(sigaction(SIGSYS, &action, NULL));
	pthread_barrier_init(&set_up, NULL, 2);
	pthread_barrier_init(&go_on, NULL, 2);
	SAME(pthread_create(&thread, NULL, free_thread, NULL), 0);
	pthread_barrier_wait(&set_up);
	if (prctl(PR_SET_SYSCALL_USER_DISPATCH, ON, 0, 0, &selector) < 0) {
		SAME(errno, EINVAL); /* a kernel without it */
		ready_and_hold();
		pass();
	}
	SAME(tries(), 1);
	ready_and_hold();
	SAME(tries(), 1);
	SAME(call_caught, SYS_getpid);
	pthread_barrier_wait(&go_on);
	SAME(pthread_join(thread, NULL), 0);
	pass();
}
