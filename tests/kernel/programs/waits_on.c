/* Calls that the kernel goes on with by a restart block, by way of libc and without: none returns before its time. */
#include "selfcheck.h"
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>

static volatile int returned = -1, tids[7];
static int word, ends[2];

static long raw(long number, long a, long b, long c, long d)
{
	long result;
	register long fourth __asm__("r10") = d;
	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth) : "rcx", "r11", "memory");
	return result;
}

static void *work(void *argument)
{
	int number = (int)(intptr_t)argument;
	struct timespec long_time = {60, 0}, left;
	struct pollfd poller = {.fd = ends[0], .events = POLLIN};
	set(&tids[number], gettid());
	switch (number) {
	case 0: nanosleep(&long_time, NULL); break;
	case 1: clock_nanosleep(CLOCK_BOOTTIME, 0, &long_time, &left); break;
	case 2: poll(&poller, 1, -1); break;
	case 3: poll(&poller, 1, 60000); break;
	case 4: raw(SYS_futex, (long)&word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, (long)&long_time); break;
	case 5: raw(SYS_nanosleep, (long)&long_time, (long)&left, 0, 0); break;
	default: raw(SYS_poll, (long)&poller, 1, 60000, 0);
	}
	set(&returned, number);
	return argument;
}

static void blocked(void)
{
	static const long calls[] = {SYS_nanosleep, SYS_clock_nanosleep, SYS_poll, SYS_poll, SYS_futex, SYS_nanosleep, SYS_poll};
	for (int i = 0; i < 7; i++) {
		long other = calls[i] == SYS_nanosleep ? SYS_clock_nanosleep : calls[i];
		char path[64], line[64];
		long number;
		snprintf(path, sizeof path, "/proc/%d/task/%d/syscall", getpid(), tids[i]);
		do { /* until it is blocked in its call, or goes on with it */
			int fd = OK(open(path, O_RDONLY | O_CLOEXEC));
			ssize_t got = read(fd, line, sizeof line - 1);
			close(fd);
			line[got > 0 ? got : 0] = 0;
			char *end;
			number = strtol(line, &end, 10);
			SAME(returned, -1);
			sched_yield();
		} while (number != calls[i] && number != other && number != SYS_restart_syscall);
	}
}

int main(int argc, char **argv)
{
	pthread_t threads[7];
	begin(argc, argv);
	OK(pipe(ends));
	for (int i = 0; i < 7; i++) {
		SAME(pthread_create(&threads[i], NULL, work, (void *)(intptr_t)i), 0);
		while (!tids[i])
			sched_yield();
	}
	blocked();
	ready_and_hold();
	blocked();
	SAME(returned, -1);
	pass();
}
