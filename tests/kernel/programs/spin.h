/* Threads that hold values in registers, without a call, until the program lets them go. */
#ifndef SPIN_H
#define SPIN_H
#include "selfcheck.h"
#include <cpuid.h>
#include <pthread.h>

/* Set to 1 by a spinning thread, to 2 by main() after the hold. */
MAYBE volatile int spinning[16];

MAYBE bool cpu_has_avx(void) { return __builtin_cpu_supports("avx"); }
MAYBE bool cpu_has_avx512(void) { return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw"); }

/* Run a body in a thread of its own, hold while it spins, and let it check its registers. */
MAYBE void spin_in_threads(void *(*body)(void *), int threads)
{
	pthread_t thread[16];
	for (intptr_t i = 0; i < threads; i++)
		SAME(pthread_create(&thread[i], NULL, body, (void *)i), 0);
	for (int i = 0; i < threads; i++)
		await(&spinning[i], 1);
	ready_and_hold();
	for (int i = 0; i < threads; i++)
		set(&spinning[i], 2);
	for (int i = 0; i < threads; i++)
		SAME(pthread_join(thread[i], NULL), 0);
	pass();
}
#endif
