/* Whatever prctl(2), arch_prctl(2) and their like can be asked for: two threads with as much of it changed as this
 * machine allows, and each the same afterwards. */
#include "selfcheck.h"
#include <pthread.h>
#include <sys/syscall.h>

#define NODES 1024
struct question {
	const char *name;
	long call;
	long arguments[5]; /* -1: the address of a word that takes the answer */
	long changed[5]; /* what to ask for beforehand, if anything, by the same call */
};
#define WORD -1
static const struct question of_thread[] = {
	{"PDEATHSIG", SYS_prctl, {2, WORD}, {1, SIGUSR2}},
	{"KEEPCAPS", SYS_prctl, {7}, {8, 1}},
	{"TIMING", SYS_prctl, {13}, {0}},
	{"TSC", SYS_prctl, {25, WORD}, {26, 2}},
	{"SECUREBITS", SYS_prctl, {27}, {0}},
	{"TIMERSLACK", SYS_prctl, {30}, {29, 77777}},
	{"MCE_KILL", SYS_prctl, {34}, {33, 1, 1}},
	{"NO_NEW_PRIVS", SYS_prctl, {39}, {38, 1}},
	{"AMBIENT", SYS_prctl, {47, 1, 10}, {0}},
	{"STORE_BYPASS", SYS_prctl, {52, 0}, {53, 0, 4}},
	{"INDIRECT_BRANCH", SYS_prctl, {52, 1}, {53, 1, 8}},
	{"L1D_FLUSH", SYS_prctl, {52, 2}, {53, 2, 2}},
	{"IO_FLUSHER", SYS_prctl, {58}, {57, 1}},
	{"ARCH_GET_CPUID", SYS_arch_prctl, {0x1011}, {0x1012, 0}},
	{"personality", SYS_personality, {0xffffffff}, {0x0040000}},
};
static const struct question of_process[] = {
	{"DUMPABLE", SYS_prctl, {3}, {4, 0}},
	{"CHILD_SUBREAPER", SYS_prctl, {37, WORD}, {36, 1}},
	{"THP_DISABLE", SYS_prctl, {42}, {41, 1, 2}},
	{"MDWE", SYS_prctl, {66}, {0}},
	{"MEMORY_MERGE", SYS_prctl, {68}, {67, 1}},
	{"FUTEX_HASH", SYS_prctl, {78, 2}, {78, 1, 64}},
	{"TIMER_CREATE_RESTORE_IDS", SYS_prctl, {77, 2}, {0}},
	{"ARCH_GET_XCOMP_PERM", SYS_arch_prctl, {0x1022, WORD}, {0x1023, 18}},
	{"ARCH_GET_UNTAG_MASK", SYS_arch_prctl, {0x4001, WORD}, {0}},
};
#define COUNT(table) (sizeof(table) / sizeof *(table))

struct answer {
	long result;
	int error;
	long word;
};

static struct answer ask(const struct question *question)
{
	struct answer answer = {0};
	long a[5];
	for (int i = 0; i < 5; i++)
		a[i] = question->arguments[i] == WORD ? (long)&answer.word : question->arguments[i];
	errno = 0;
	answer.result = syscall(question->call, a[0], a[1], a[2], a[3], a[4]);
	answer.error = answer.result < 0 ? errno : 0;
	return answer;
}

static void change(const struct question *table, size_t count, struct answer *answers)
{
	for (size_t i = 0; i < count; i++) {
		const long *a = table[i].changed;
		if (a[0])
			syscall(table[i].call, a[0], a[1], a[2], a[3], a[4]); /* as far as it is allowed */
	}
	for (size_t i = 0; i < count; i++)
		answers[i] = ask(&table[i]);
}

static void compare(const struct question *table, size_t count, const struct answer *before)
{
	for (size_t i = 0; i < count; i++) {
		struct answer now = ask(&table[i]);
		if (now.result != before[i].result || now.error != before[i].error || now.word != before[i].word)
			FAIL("%s: %ld (%s, %#lx), before: %ld (%s, %#lx)", table[i].name, now.result,
			     strerror(now.error), now.word, before[i].result, strerror(before[i].error),
			     before[i].word);
	}
}

static pthread_barrier_t set_up, go_on;

static void policy(int *mode, unsigned long *nodes)
{
	*mode = -1;
	memset(nodes, 0, NODES / 8);
	syscall(SYS_get_mempolicy, mode, nodes, NODES + 1L, NULL, 0L);
}

static void changed_and_held(bool is_main)
{
	struct answer answers[COUNT(of_thread)];
	unsigned long node0[NODES / 64] = {1}, nodes[NODES / 64];
	int mode;
	if (is_main)
		change(of_thread, COUNT(of_thread), answers);
	else
		for (size_t i = 0; i < COUNT(of_thread); i++)
			answers[i] = ask(&of_thread[i]);
	syscall(SYS_set_mempolicy, is_main ? 2L : 3L, node0, NODES + 1L); /* MPOL_BIND, MPOL_INTERLEAVE */
	int before;
	policy(&before, node0);
	if (is_main)
		ready_and_hold();
	else {
		pthread_barrier_wait(&set_up);
		pthread_barrier_wait(&go_on);
	}
	compare(of_thread, COUNT(of_thread), answers);
	policy(&mode, nodes);
	SAME(mode, before);
	SAME(memcmp(nodes, node0, sizeof nodes), 0);
}

static void *work(void *argument)
{
	changed_and_held(false);
	return argument;
}

int main(int argc, char **argv)
{
	struct answer answers[COUNT(of_process)];
	pthread_t thread;
	begin(argc, argv);
	pthread_barrier_init(&set_up, NULL, 2);
	pthread_barrier_init(&go_on, NULL, 2);
	SAME(pthread_create(&thread, NULL, work, NULL), 0);
	pthread_barrier_wait(&set_up);
	change(of_process, COUNT(of_process), answers);
	changed_and_held(true);
	pthread_barrier_wait(&go_on);
	SAME(pthread_join(thread, NULL), 0);
	compare(of_process, COUNT(of_process), answers);
	pass();
}
