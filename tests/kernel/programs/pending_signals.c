/* Pending signals: a thread's own and the process's, with their data, in their order. */
#include "selfcheck.h"
#include <pthread.h>

static volatile int stage;
static sigset_t all;

static void queue_to_thread(int signal, int value)
{
	siginfo_t info = {.si_signo = signal, .si_code = SI_QUEUE};
	info.si_pid = getpid();
	info.si_uid = getuid();
	info.si_value.sival_int = value;
	OK(syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), signal, &info));
}

static void expect(int signal, int code, int value)
{
	siginfo_t info = {0};
	struct timespec none = {0};
	/* not sigtimedwait(3), which turns SI_TKILL into SI_USER */
	SAME(syscall(SYS_rt_sigtimedwait, &all, &info, &none, 8), signal);
	SAME(info.si_code, code);
	if (code == SI_QUEUE)
		SAME(info.si_value.sival_int, value);
	SAME(info.si_pid, getpid());
	SAME(info.si_uid, getuid());
}

static void *work(void *argument)
{
	struct timespec none = {0};
	queue_to_thread(SIGRTMIN + 5, 501);
	queue_to_thread(SIGRTMIN + 5, 502);
	queue_to_thread(SIGRTMIN + 4, 401);
	OK(tgkill(getpid(), gettid(), SIGUSR1));
	set(&stage, 1);
	await(&stage, 2);
	expect(SIGUSR1, SI_TKILL, 0);
	expect(SIGRTMIN + 4, SI_QUEUE, 401);
	expect(SIGRTMIN + 5, SI_QUEUE, 501);
	expect(SIGRTMIN + 5, SI_QUEUE, 502);
	FAILS(sigtimedwait(&all, NULL, &none), EAGAIN);
	return argument;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct timespec none = {0};
	pthread_t thread;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	pthread_create(&thread, NULL, work, NULL);
	await(&stage, 1);
	queue_to_thread(SIGRTMIN + 6, 601);
	OK(tgkill(getpid(), getpid(), SIGHUP));
	sigset_t now;
	/* what is the process's own: any thread may take it, so the other one is done before */
	ready_and_hold();
	OK(sigpending(&now));
	SAME(sigismember(&now, SIGHUP), 1);
	SAME(sigismember(&now, SIGUSR1), 0);
	set(&stage, 2);
	SAME(pthread_join(thread, NULL), 0);
	expect(SIGHUP, SI_TKILL, 0);
	expect(SIGRTMIN + 6, SI_QUEUE, 601);
	FAILS(sigtimedwait(&all, NULL, &none), EAGAIN);
	pass();
}
