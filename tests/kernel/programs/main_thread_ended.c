/* A child whose main thread has ended: its other threads have its memory, files, timers and signals, and its parent
 * gets the exit status of whichever ends last. */
#include "selfcheck.h"
#include <pthread.h>

static pid_t process;
static struct gate gate;
static int ends[2], *memory;
static timer_t timer;
static pthread_barrier_t go_on;

static void await_end_of_main(void)
{
	char path[64], line[512];
	snprintf(path, sizeof path, "/proc/self/task/%d/stat", process);
	for (bool ended = false; !ended;) {
		int fd = OK(open(path, O_RDONLY));
		memset(line, 0, sizeof line);
		OK(read(fd, line, sizeof line - 1));
		close(fd);
		ended = strstr(line, ") Z ") != NULL;
		sched_yield();
	}
}

static void *second(void *unused)
{
	sigset_t usr2;
	int signal;
	sigemptyset(&usr2);
	sigaddset(&usr2, SIGUSR2);
	pthread_barrier_wait(&go_on);
	SAME(sigwait(&usr2, &signal), 0);
	SAME(signal, SIGUSR2);
	pthread_barrier_wait(&go_on);
	syscall(SYS_exit, 5);
	return unused;
}

static void *first(void *unused)
{
	char text[4] = "";
	pthread_t other;
	struct itimerspec left;
	struct stat here, root;

	SAME(pthread_setname_np(pthread_self(), "survivor"), 0);
	SAME(pthread_create(&other, NULL, second, NULL), 0);
	await_end_of_main();
	gate_child_is_set(&gate);
	hold();
	await_end_of_main();
	SAME(getpid(), process);
	CHECK(gettid() != process);
	CHECK(strcmp(proc_field("/proc/self/status", "Name:"), "main_thread_end") == 0);
	CHECK(strcmp(proc_field("/proc/thread-self/status", "Name:"), "survivor") == 0);
	SAME(atoi(proc_field("/proc/self/status", "Uid:")), 65534);
	SAME(getuid(), 65534);
	SAME(read(3, text, sizeof text), 3);
	CHECK(memcmp(text, "abc", 3) == 0);
	SAME(*memory, 4711);
	OK(stat(".", &here));
	OK(stat("/", &root));
	SAME(here.st_ino, root.st_ino);
	OK(timer_gettime(timer, &left));
	CHECK(left.it_value.tv_sec > 500);
	pthread_barrier_wait(&go_on);
	pthread_barrier_wait(&go_on);
	syscall(SYS_exit, 5);
	return unused;
}

int main(int argc, char **argv)
{
	int status;
	begin(argc, argv);
	memory = shared(PAGE);
	OK(pipe(ends));
	gate_make(&gate);
	pid_t child = OK(fork());
	if (child == 0) {
		sigset_t usr2;
		pthread_t thread;
		struct sigevent silent = {.sigev_notify = SIGEV_NONE};
		struct itimerspec later = {.it_value.tv_sec = 1000};
		SAME(ends[0], 3);
		SAME(write(ends[1], "abc", 3), 3);
		OK(chdir("/"));
		OK(setuid(65534));
		OK(timer_create(CLOCK_MONOTONIC, &silent, &timer));
		OK(timer_settime(timer, 0, &later, NULL));
		pthread_barrier_init(&go_on, NULL, 2);
		sigemptyset(&usr2);
		sigaddset(&usr2, SIGUSR2);
		OK(sigprocmask(SIG_BLOCK, &usr2, NULL));
		process = getpid();
		SAME(pthread_create(&thread, NULL, first, NULL), 0);
		syscall(SYS_exit, 7);
	}
	close(ends[0]);
	close(ends[1]);
	gate_wait(&gate, 1);
	*memory = 4711;
	ready_and_hold();
	SAME(waitpid(child, &status, WNOHANG), 0);
	OK(kill(child, SIGUSR2));
	SAME(OK(waitpid(child, &status, 0)), child);
	CHECK(WIFEXITED(status));
	SAME(WEXITSTATUS(status), 5);
	pass();
}
