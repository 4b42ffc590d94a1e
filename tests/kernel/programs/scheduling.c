/* Nice, scheduler, priority, reset-on-fork, affinity, timer slack and I/O priority of each thread. */
#include "selfcheck.h"
#include <pthread.h>
#include <sys/resource.h>

static volatile int stage;

struct attributes {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
	uint32_t util_min, util_max;
};

struct seen {
	int nice, slack, ioprio;
	struct attributes attributes;
	cpu_set_t cpus;
};

static struct seen look(void)
{
	struct seen seen;
	memset(&seen, 0, sizeof seen);
	errno = 0;
	seen.nice = getpriority(PRIO_PROCESS, 0);
	seen.slack = prctl(PR_GET_TIMERSLACK);
	seen.ioprio = syscall(SYS_ioprio_get, 1, 0);
	OK(syscall(SYS_sched_getattr, 0, &seen.attributes, sizeof seen.attributes, 0));
	OK(sched_getaffinity(0, sizeof seen.cpus, &seen.cpus));
	return seen;
}

static void compare(struct seen want)
{
	struct seen now = look();
	SAME(now.nice, want.nice);
	SAME(now.slack, want.slack);
	SAME(now.ioprio, want.ioprio);
	SAME(now.attributes.policy, want.attributes.policy);
	SAME(now.attributes.priority, want.attributes.priority);
	SAME(now.attributes.flags, want.attributes.flags);
	CHECK(CPU_EQUAL(&now.cpus, &want.cpus));
}

static void *work(void *argument)
{
	intptr_t number = (intptr_t)argument;
	struct sched_param batch = {0}, fifo = {.sched_priority = 3};
	cpu_set_t one;
	if (number == 1) {
		OK(sched_setscheduler(0, SCHED_BATCH, &batch));
		OK(setpriority(PRIO_PROCESS, 0, 7));
	} else if (number == 2) {
		OK(sched_setscheduler(0, SCHED_IDLE, &batch));
	} else if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &fifo) < 0) {
		/* real-time scheduling may be forbidden here: then reset-on-fork alone */
		OK(sched_setscheduler(0, SCHED_OTHER | SCHED_RESET_ON_FORK, &batch));
	}
	OK(prctl(PR_SET_TIMERSLACK, 100000 + number));
	OK(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | number));
	OK(sched_getaffinity(0, sizeof one, &one));
	for (int cpu = 0; CPU_COUNT(&one) > 1; cpu++)
		CPU_CLR(cpu, &one);
	OK(sched_setaffinity(0, sizeof one, &one));
	struct seen seen = look();
	__atomic_add_fetch(&stage, 1, __ATOMIC_SEQ_CST);
	while (stage < 10)
		usleep(1000);
	compare(seen);
	return NULL;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	pthread_t thread[3];
	OK(setpriority(PRIO_PROCESS, 0, 4));
	OK(prctl(PR_SET_TIMERSLACK, 77777));
	for (intptr_t i = 0; i < 3; i++)
		pthread_create(&thread[i], NULL, work, (void *)(i + 1));
	await(&stage, 3);
	struct seen seen = look();
	ready_and_hold();
	compare(seen);
	set(&stage, 10);
	for (int i = 0; i < 3; i++)
		pthread_join(thread[i], NULL);
	pass();
}
