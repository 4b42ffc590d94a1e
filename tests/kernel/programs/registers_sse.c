/* All SSE registers, MXCSR, and the x87 stack and control word. */
#include "spin.h"
#include <fenv.h>

static void *body(void *argument)
{
	int number = (int)(intptr_t)argument;
	volatile int *spin = &spinning[number];
	struct state {
		uint16_t control, status, tag;
		uint8_t rest[10];
		uint64_t high;
		uint32_t mxcsr, mask;
		uint8_t st[8][16], xmm[16][16], tail[96];
	} __attribute__((aligned(16))) want, got, kept;
	_Static_assert(sizeof want == 512 || sizeof want == 528, "the FXSAVE area");
	uint8_t wanted[512] __attribute__((aligned(16))), found[512] __attribute__((aligned(16))),
		before[512] __attribute__((aligned(16)));
	(void)want, (void)got, (void)kept;
	__asm__ volatile("fxsave %0" : "=m"(before));
	memcpy(wanted, before, 512);
	wanted[0] = 0x7f, wanted[1] = 0x0c + 0; /* control: round to zero */
	wanted[4] = 0xff;			/* all eight x87 registers in use */
	uint32_t mxcsr = 0x1f80 | 0x6000 | 0x8000; /* round to zero, flush to zero */
	memcpy(wanted + 24, &mxcsr, 4);
	for (int i = 0; i < 8; i++)
		for (int byte = 0; byte < 10; byte++)
			wanted[32 + i * 16 + byte] = byte == 9 ? 0x3f : byte == 8 ? 0xf0 + i : byte == 7 ? 0x80 | i : i * 10 + byte + number;
	for (int i = 0; i < 256; i++)
		wanted[160 + i] = i * 7 + 3 + number;
	__asm__ volatile("fxrstor %2\n\tmovl $1, (%1)\n\t"
			 "1: cmpl $2, (%1)\n\tpause\n\tjne 1b\n\t"
			 "fxsave %0\n\tfxrstor %3"
			 : "=m"(found)
			 : "r"(spin), "m"(wanted), "m"(before)
			 : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
			   "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
	for (int i = 0; i < 416; i++)
		if ((i < 6 || i >= 24) && (i < 28 || i >= 32) && found[i] != wanted[i])
			FAIL("byte %d of the FXSAVE area is %#x, not %#x", i, found[i], wanted[i]);
	return NULL;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	spin_in_threads(body, 3);
}
