/* All 32 AVX-512 registers and the mask registers. */
#include "spin.h"

#define EACH(m)                                                                                                       \
	m(0) m(1) m(2) m(3) m(4) m(5) m(6) m(7) m(8) m(9) m(10) m(11) m(12) m(13) m(14) m(15) m(16) m(17) m(18) m(19) \
		m(20) m(21) m(22) m(23) m(24) m(25) m(26) m(27) m(28) m(29) m(30) m(31)
#define MASKS(m) m(1) m(2) m(3) m(4) m(5) m(6) m(7)
#define LOAD(n) "vmovdqu64 " #n "*64(%2), %%zmm" #n "\n\t"
#define STORE(n) "vmovdqu64 %%zmm" #n ", " #n "*64(%0)\n\t"
#define LOADK(n) "kmovq " #n "*8(%2), %%k" #n "\n\t"
#define STOREK(n) "kmovq %%k" #n ", 2048+" #n "*8(%0)\n\t"

__attribute__((target("avx512f,avx512bw"))) static void *body(void *argument)
{
	int number = (int)(intptr_t)argument;
	uint8_t want[2112], got[2112];
	for (int i = 0; i < 2112; i++)
		want[i] = i * 11 + i / 256 + number;
	memset(got, 0, sizeof got);
	__asm__ volatile(EACH(LOAD) MASKS(LOADK) "movl $1, (%1)\n\t"
			 "1: cmpl $2, (%1)\n\tpause\n\tjne 1b\n\t" EACH(STORE) MASKS(STOREK) "vzeroupper"
			 :
			 : "r"(got), "r"(&spinning[number]), "r"(want)
			 : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
			   "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", "xmm17", "xmm18", "xmm19", "xmm20",
			   "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31",
			   "k1", "k2", "k3", "k4", "k5", "k6", "k7");
	for (int i = 0; i < 2048; i++)
		if (got[i] != want[i])
			FAIL("byte %d of zmm%d is %#x, not %#x", i % 64, i / 64, got[i], want[i]);
	if (memcmp(got + 2048 + 8, want + 8, 56) != 0)
		FAIL("the mask registers differ");
	return NULL;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	if (!cpu_has_avx512()) {
		ready_and_hold();
		pass();
	}
	spin_in_threads(body, 3);
}
