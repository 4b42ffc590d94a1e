/* The FS and GS bases of two threads. */
#include "spin.h"
#include <asm/prctl.h>

static void *body(void *argument)
{
	int number = (int)(intptr_t)argument;
	uint64_t area[8] = {0x1234 + number}, fs = 0, gs = 0, fs_now = 0, value = 0;
	OK(syscall(SYS_arch_prctl, ARCH_GET_FS, &fs));
	OK(syscall(SYS_arch_prctl, ARCH_SET_GS, area));
	set(&spinning[number], 1);
	await(&spinning[number], 2);
	OK(syscall(SYS_arch_prctl, ARCH_GET_FS, &fs_now));
	OK(syscall(SYS_arch_prctl, ARCH_GET_GS, &gs));
	SAME(fs_now, fs);
	SAME(gs, (uint64_t)area);
	__asm__ volatile("mov %%gs:0, %0" : "=r"(value));
	SAME(value, 0x1234 + number);
	OK(syscall(SYS_arch_prctl, ARCH_SET_GS, 0));
	return NULL;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	spin_in_threads(body, 2);
}
