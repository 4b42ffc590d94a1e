/* Arithmetic flags and the direction flag. */
#include "spin.h"

static void *body(void *argument)
{
	int number = (int)(intptr_t)argument;
	volatile int *spin = &spinning[number];
	uint64_t got = 0, want = 0x202 | (number ? 0x400 | 0x1 | 0x80 : 0x800 | 0x40); /* DF CF SF, or OF ZF */
	__asm__ volatile("pushf\n\tpush %2\n\tpopf\n\tmovl $1, (%1)\n\t"
			 "1: mov (%1), %%ecx\n\tlea -2(%%ecx), %%ecx\n\tjrcxz 2f\n\tpause\n\tjmp 1b\n\t"
			 "2: pushf\n\tpop %0\n\tpopf\n\tcld"
			 : "=&r"(got)
			 : "r"(spin), "r"(want)
			 : "rcx", "memory", "cc");
	SAME(got & 0xcd5, want & 0xcd5);
	return NULL;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	spin_in_threads(body, 2);
}
