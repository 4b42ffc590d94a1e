/* A POSIX timer that signals one thread (SIGEV_THREAD_ID), and one whose expiry is pending with overruns. */
#include "selfcheck.h"
#include <pthread.h>

static volatile int stage, tid_of_worker;
static volatile pid_t received_by;
static void handler(int signal) { (void)signal; received_by = gettid(); set(&stage, 3); }

static void *work(void *argument)
{
	tid_of_worker = gettid();
	set(&stage, 1);
	while (stage != 3)
		sched_yield();
	return argument;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	pthread_t thread;
	sigset_t block;
	signal(SIGRTMIN + 3, handler);
	pthread_create(&thread, NULL, work, NULL);
	await(&stage, 1);
	int id, pending;
	struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN + 3};
	event._sigev_un._tid = tid_of_worker;
	OK(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &id));
	struct itimerspec spec = {{0, 0}, {600, 0}};
	OK(syscall(SYS_timer_settime, id, 0, &spec, NULL));

	sigemptyset(&block);
	sigaddset(&block, SIGRTMIN + 4);
	pthread_sigmask(SIG_BLOCK, &block, NULL);
	event = (struct sigevent){.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN + 4, .sigev_value.sival_int = 55};
	event._sigev_un._tid = gettid();
	OK(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &pending));
	spec = (struct itimerspec){{0, 1000000}, {0, 1000}};
	OK(syscall(SYS_timer_settime, pending, 0, &spec, NULL));
	sigset_t now;
	do
		OK(sigpending(&now));
	while (!sigismember(&now, SIGRTMIN + 4));
	ready_and_hold();
	siginfo_t info;
	struct timespec limit = {5, 0};
	SAME(sigtimedwait(&block, &info, &limit), SIGRTMIN + 4);
	SAME(info.si_code, SI_TIMER);
	SAME(info.si_value.sival_int, 55);
	SAME(info.si_timerid, pending);
	SAME(sigtimedwait(&block, &info, &limit), SIGRTMIN + 4); /* and it goes on firing */

	spec = (struct itimerspec){{0, 0}, {0, 1000000}};
	OK(syscall(SYS_timer_settime, id, 0, &spec, NULL));
	SAME(pthread_join(thread, NULL), 0);
	SAME(received_by, tid_of_worker);
	pass();
}
