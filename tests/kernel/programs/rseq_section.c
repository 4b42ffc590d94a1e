/* A main thread inside of a restartable sequence goes on at its abort handler, never inside. */
#include "selfcheck.h"
#include <pthread.h>
#include <sys/rseq.h>

static volatile int stage, inside;

/* Stay in a sequence until another thread says so; 1 if it was left by its abort handler, 0 if the kernel has
 * forgotten the sequence while it was running, 2 if it was told to stop. */
static int stay_inside(volatile struct rseq *area)
{
	int how = 2;
	asm volatile("jmp 3f\n\t"
		     ".pushsection .data\n\t"
		     ".balign 32\n\t"
		     "9: .long 0, 0\n\t"
		     ".quad 1f, 2f - 1f, 4f\n\t"
		     ".popsection\n\t"
		     ".long 0x53053053\n\t" /* RSEQ_SIG, in front of the handler */
		     "4: movl $1, %[how]\n\t"
		     "jmp 5f\n\t"
		     "3: leaq 9b(%%rip), %%rax\n\t"
		     "movq %%rax, 8(%[area])\n\t"
		     "1: movl $1, %[inside]\n\t"
		     "6: cmpq $0, 8(%[area])\n\t"
		     "je 7f\n\t"
		     "cmpl $3, %[stage]\n\t"
		     "jne 6b\n\t"
		     "jmp 5f\n\t"
		     "7: movl $0, %[how]\n\t"
		     "2:\n\t"
		     "5:\n\t"
		     : [how] "+r"(how), [inside] "=m"(inside)
		     : [area] "r"(area), [stage] "m"(stage)
		     : "rax", "memory", "cc");
	area->rseq_cs = 0;
	return how;
}

static void *watch(void *argument)
{
	while (!inside)
		sched_yield();
	ready_and_hold();
	set(&stage, 3);
	return argument;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	volatile struct rseq *area = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
	pthread_t thread;
	CHECK(__rseq_size > 0);
	pthread_create(&thread, NULL, watch, NULL);
	for (int how = 1; how != 2;) {
		how = stay_inside(area);
		if (how == 0)
			FAIL("it went on inside of a sequence that the kernel has forgotten");
	}
	SAME(pthread_join(thread, NULL), 0);
	pass();
}
