/* Restartable sequences stay registered, for every thread: the kernel writes the CPU number. */
#include "selfcheck.h"
#include <pthread.h>
#include <sys/rseq.h>

static volatile int stage;

static void follows_the_cpu(void)
{
	volatile struct rseq *area = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
	cpu_set_t allowed, one;
	OK(sched_getaffinity(0, sizeof allowed, &allowed));
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &allowed))
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		area->cpu_id_start = 9999; /* the kernel writes both when it schedules the thread */
		OK(sched_setaffinity(0, sizeof one, &one));
		sched_yield();
		struct timespec moment = {0, 1000};
		nanosleep(&moment, NULL);
		SAME(area->cpu_id, cpu);
	}
	area->cpu_id_start = area->cpu_id;
	OK(sched_setaffinity(0, sizeof allowed, &allowed));
	/* Registered with this very area, size and signature: a second registration is EBUSY, another EINVAL. */
	FAILS(syscall(SYS_rseq, area, 32, 0, RSEQ_SIG), EBUSY);
	FAILS(syscall(SYS_rseq, (char *)area + 32, 32, 0, RSEQ_SIG), EINVAL);
}

static void *work(void *argument)
{
	set(&stage, 1);
	await(&stage, 2);
	follows_the_cpu();
	return argument;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	pthread_t thread;
	CHECK(__rseq_size > 0);
	pthread_create(&thread, NULL, work, NULL);
	await(&stage, 1);
	ready_and_hold();
	follows_the_cpu();
	set(&stage, 2);
	SAME(pthread_join(thread, NULL), 0);
	pass();
}
