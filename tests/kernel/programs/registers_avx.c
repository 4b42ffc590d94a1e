/* The upper halves of all AVX registers. */
#include "spin.h"

#define EACH(m) m(0) m(1) m(2) m(3) m(4) m(5) m(6) m(7) m(8) m(9) m(10) m(11) m(12) m(13) m(14) m(15)
#define LOAD(n) "vmovdqu " #n "*32(%2), %%ymm" #n "\n\t"
#define STORE(n) "vmovdqu %%ymm" #n ", " #n "*32(%0)\n\t"

__attribute__((target("avx"))) static void *body(void *argument)
{
	int number = (int)(intptr_t)argument;
	uint8_t want[512], got[512];
	for (int i = 0; i < 512; i++)
		want[i] = i * 5 + number;
	__asm__ volatile(EACH(LOAD) "movl $1, (%1)\n\t"
			 "1: cmpl $2, (%1)\n\tpause\n\tjne 1b\n\t" EACH(STORE) "vzeroupper"
			 :
			 : "r"(got), "r"(&spinning[number]), "r"(want)
			 : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
			   "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
	for (int i = 0; i < 512; i++)
		if (got[i] != want[i])
			FAIL("byte %d of ymm%d is %#x, not %#x", i % 32, i / 32, got[i], want[i]);
	return NULL;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	if (!cpu_has_avx()) {
		ready_and_hold();
		pass();
	}
	spin_in_threads(body, 3);
}
