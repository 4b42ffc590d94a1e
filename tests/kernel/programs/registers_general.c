/* The general registers and the flags of a thread that never enters the kernel. */
#include "spin.h"

static void *body(void *argument)
{
	int number = (int)(intptr_t)argument;
	uint64_t want[15], got[15], flags;
	for (int i = 0; i < 15; i++)
		want[i] = 0x1111111111111111ull * (i + 1) + number;
	/* got[] is filled from the registers after the loop; r15 holds the address of both and of the flag. */
	struct {
		uint64_t *want, *got, *flags;
		volatile int *spin;
		uint64_t bp, sp;
	} frame = {want, got, &flags, &spinning[number], 0, 0};
	__asm__ volatile(
		"mov %%rbp, 32(%0)\n\tmov %%rsp, 40(%0)\n\tmov %0, %%r15\n\t"
		"mov 24(%%r15), %%rax\n\tmovl $1, (%%rax)\n\t"
		"mov (%%r15), %%rsp\n\t" /* even the stack pointer is just a register here */
		"mov 0(%%rsp), %%rax\n\tmov 8(%%rsp), %%rbx\n\tmov 16(%%rsp), %%rcx\n\tmov 24(%%rsp), %%rdx\n\t"
		"mov 32(%%rsp), %%rsi\n\tmov 40(%%rsp), %%rdi\n\tmov 48(%%rsp), %%rbp\n\tmov 56(%%rsp), %%r8\n\t"
		"mov 64(%%rsp), %%r9\n\tmov 72(%%rsp), %%r10\n\tmov 80(%%rsp), %%r11\n\tmov 88(%%rsp), %%r12\n\t"
		"mov 96(%%rsp), %%r13\n\tmov 104(%%rsp), %%r14\n\t"
		"mov 24(%%r15), %%rsp\n\t"
		"1: cmpl $2, (%%rsp)\n\tpause\n\tjne 1b\n\t"
		"mov 8(%%r15), %%rsp\n\t"
		"mov %%rax, 0(%%rsp)\n\tmov %%rbx, 8(%%rsp)\n\tmov %%rcx, 16(%%rsp)\n\tmov %%rdx, 24(%%rsp)\n\t"
		"mov %%rsi, 32(%%rsp)\n\tmov %%rdi, 40(%%rsp)\n\tmov %%rbp, 48(%%rsp)\n\tmov %%r8, 56(%%rsp)\n\t"
		"mov %%r9, 64(%%rsp)\n\tmov %%r10, 72(%%rsp)\n\tmov %%r11, 80(%%rsp)\n\tmov %%r12, 88(%%rsp)\n\t"
		"mov %%r13, 96(%%rsp)\n\tmov %%r14, 104(%%rsp)\n\t"
		"mov 32(%%r15), %%rbp\n\tmov 40(%%r15), %%rsp\n\t"
		:
		: "a"(&frame)
		: "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
	for (int i = 0; i < 14; i++)
		if (got[i] != want[i])
			FAIL("register %d is %#lx, not %#lx", i, got[i], want[i]);
	return NULL;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	spin_in_threads(body, 3);
}
