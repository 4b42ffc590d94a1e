/* Memory that is never writable and executable (PR_SET_MDWE), no time stamp counter, machine checks told early. */
#include "selfcheck.h"
#include <pthread.h>
#include <setjmp.h>

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_GET_MDWE 66
#endif

static sigjmp_buf back;
static pthread_barrier_t set_up, go_on;

static void on_fault(int signal)
{
	(void)signal;
	siglongjmp(back, 1);
}

static void check(void)
{
	volatile bool faulted = true;
	int counter;
	FAILS(mmap(NULL, PAGE, PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), EACCES);
	OK(prctl(PR_GET_TSC, &counter, 0, 0, 0));
	SAME(counter, PR_TSC_SIGSEGV);
	SAME(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0), PR_MCE_KILL_EARLY);
	if (sigsetjmp(back, 1) == 0) {
		__builtin_ia32_rdtsc();
		faulted = false;
	}
	CHECK(faulted);
}

static void *work(void *argument)
{
	pthread_barrier_wait(&set_up);
	pthread_barrier_wait(&go_on);
	check();
	return argument;
}

int main(int argc, char **argv)
{
	pthread_t thread;
	begin(argc, argv);
	struct sigaction action = {.sa_handler = on_fault};
	OK(sigaction(SIGSEGV, &action, NULL));
	OK(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0));
	pthread_barrier_init(&set_up, NULL, 2);
	pthread_barrier_init(&go_on, NULL, 2);
	OK(prctl(PR_SET_MDWE, 1, 0, 0, 0));
	OK(prctl(PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0));
	SAME(pthread_create(&thread, NULL, work, NULL), 0);
	pthread_barrier_wait(&set_up);
	ready_and_hold();
	check();
	pthread_barrier_wait(&go_on);
	SAME(pthread_join(thread, NULL), 0);
	pass();
}
