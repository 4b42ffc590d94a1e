/* Strict mode: a process and a thread that may do nothing but read, write and end. */
#include "selfcheck.h"
#include <linux/seccomp.h>
#include <pthread.h>

static int asked[2], answered[2];

static void answer_once(void)
{
	char byte;
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0)
		_exit(1);
	syscall(SYS_write, answered[1], "s", 1);
	if (syscall(SYS_read, asked[0], &byte, 1) == 1)
		syscall(SYS_write, answered[1], &byte, 1);
}

static void *strict_thread(void *unused)
{
	answer_once();
	syscall(SYS_exit, 0);
	return unused;
}

static void ask(char byte)
{
	char back;
	SAME(write(asked[1], &byte, 1), 1);
	SAME(read(answered[0], &back, 1), 1);
	SAME(back, byte);
}

static void wait_for_start(void)
{
	char byte;
	SAME(read(answered[0], &byte, 1), 1);
	SAME(byte, 's');
}

int main(int argc, char **argv)
{
	int status, child_asked;
	pthread_t thread;
	pid_t child;
	begin(argc, argv);
	OK(pipe(asked));
	OK(pipe(answered));
	child = OK(fork());
	if (child == 0) {
		answer_once();
		syscall(SYS_getpid); /* which kills */
		_exit(0);
	}
	wait_for_start();
	child_asked = asked[1];
	OK(pipe(asked));
	SAME(pthread_create(&thread, NULL, strict_thread, NULL), 0);
	wait_for_start();
	ready_and_hold();
	ask('t');
	SAME(pthread_join(thread, NULL), 0);
	SAME(atoi(proc_field("/proc/self/status", "Seccomp:")), 0);
	asked[1] = child_asked;
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/status", child);
	SAME(atoi(proc_field(path, "Seccomp:")), 1);
	ask('c');
	SAME(OK(waitpid(child, &status, 0)), child);
	CHECK(WIFSIGNALED(status));
	SAME(WTERMSIG(status), SIGKILL);
	pass();
}
