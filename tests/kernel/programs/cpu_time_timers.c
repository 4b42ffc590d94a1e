/* Timers by the CPU time of one thread: they run with that thread alone, by whichever name of its clock. */
#include "selfcheck.h"
#include <pthread.h>

static pthread_barrier_t made, go_on, burnt;
static volatile int ids[2];
static volatile sig_atomic_t fired[2];

static void on_timer(int signal, siginfo_t *info, void *context)
{
	(void)signal, (void)context;
	fired[info->si_value.sival_int]++;
}

static void burn(void)
{
	for (double from = seconds(CLOCK_THREAD_CPUTIME_ID); seconds(CLOCK_THREAD_CPUTIME_ID) < from + 0.3;)
		;
}

static int make(clockid_t clock, int number)
{
	int id = -1;
	struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN, .sigev_value.sival_int = number};
	struct itimerspec spec = {{0, 0}, {0, 150000000}};
	event._sigev_un._tid = gettid();
	OK(syscall(SYS_timer_create, clock, &event, &id));
	OK(syscall(SYS_timer_settime, id, 0, &spec, NULL));
	return id;
}

static void *work(void *argument)
{
	clockid_t own;
	SAME(pthread_getcpuclockid(pthread_self(), &own), 0);
	ids[0] = make(CLOCK_THREAD_CPUTIME_ID, 0);
	ids[1] = make(own, 1);
	pthread_barrier_wait(&made);
	pthread_barrier_wait(&go_on);
	burn();
	pthread_barrier_wait(&burnt);
	return argument;
}

int main(int argc, char **argv)
{
	pthread_t thread;
	struct itimerspec left;
	begin(argc, argv);
	struct sigaction action = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO | SA_RESTART};
	OK(sigaction(SIGRTMIN, &action, NULL));
	pthread_barrier_init(&made, NULL, 2);
	pthread_barrier_init(&go_on, NULL, 2);
	pthread_barrier_init(&burnt, NULL, 2);
	SAME(pthread_create(&thread, NULL, work, NULL), 0);
	pthread_barrier_wait(&made);
	ready_and_hold();
	burn();
	for (int i = 0; i < 2; i++) {
		SAME(fired[i], 0);
		OK(syscall(SYS_timer_gettime, ids[i], &left));
		if (left.it_value.tv_nsec < 100000000 || left.it_value.tv_sec)
			FAIL("%ld ns of 150 ms are left of timer %d", left.it_value.tv_nsec, i);
	}
	pthread_barrier_wait(&go_on);
	pthread_barrier_wait(&burnt);
	SAME(fired[0], 1);
	SAME(fired[1], 1);
	SAME(pthread_join(thread, NULL), 0);
	pass();
}
