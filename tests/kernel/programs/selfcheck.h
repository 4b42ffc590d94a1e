/* The contract of a self-checking program: begin, set up, ready_and_hold, check, pass.
 *
 * argv[1] is a directory. `ready` appears in it when the program is set up, `result` when it has a
 * verdict (the first one counts, whichever process gave it). hold() blocks in open(2) of the FIFO
 * `go` until the test opens it. A program uses no descriptor that leads out of its job.
 */
#ifndef SELFCHECK_H
#define SELFCHECK_H
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAYBE __attribute__((unused)) static
#define PAGE 4096UL

MAYBE char test_directory[1024];

MAYBE const char *in_directory(const char *name)
{
	static _Thread_local char path[4][2048];
	static _Thread_local int turn;
	turn = (turn + 1) % 4;
	snprintf(path[turn], sizeof path[turn], "%s/%s", test_directory, name);
	return path[turn];
}

/* Make a file appear whole, or not at all if it is there already. */
MAYBE void publish(const char *name, const char *text)
{
	char scratch[64];
	snprintf(scratch, sizeof scratch, ".%s.%ld", name, (long)syscall(SYS_gettid));
	const char *from = in_directory(scratch), *to = in_directory(name);
	int fd = open(from, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		_exit(99);
	close(fd);
	if (link(from, to) < 0 && errno != EEXIST)
		_exit(98);
	unlink(from);
}

__attribute__((unused, noreturn, format(printf, 3, 4))) static void
fail_at(const char *file, int line, const char *format, ...)
{
	char text[1024];
	const char *base = strrchr(file, '/');
	int length = snprintf(text, sizeof text, "FAIL: %s:%d: ", base ? base + 1 : file, line);
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text + length, sizeof text - length, format, arguments);
	va_end(arguments);
	publish("result", text);
	_exit(1);
}

#define FAIL(...) fail_at(__FILE__, __LINE__, __VA_ARGS__)
#define CHECK(condition)                                                                                              \
	do {                                                                                                          \
		if (!(condition))                                                                                     \
			FAIL("not so: %s", #condition);                                                               \
	} while (0)
#define SAME(got, want)                                                                                               \
	do {                                                                                                          \
		long long got_ = (long long)(got), want_ = (long long)(want);                                         \
		if (got_ != want_)                                                                                    \
			FAIL("%s is %lld (%#llx), not %s = %lld (%#llx)", #got, got_, got_, #want, want_, want_);     \
	} while (0)
/* A call that must not return -1; gives its value. */
#define OK(call)                                                                                                      \
	({                                                                                                            \
		__typeof__(call) value_ = (call);                                                                     \
		if (value_ == (__typeof__(call))-1)                                                                   \
			FAIL("%s: %s", #call, strerror(errno));                                                       \
		value_;                                                                                               \
	})
/* A call that must fail with this errno. */
#define FAILS(call, error)                                                                                            \
	do {                                                                                                          \
		if ((long)(call) != -1)                                                                               \
			FAIL("%s succeeded", #call);                                                                  \
		if (errno != (error))                                                                                 \
			FAIL("%s: %s", #call, strerror(errno));                                                       \
	} while (0)

/* Take as much memory as ORCHTEST_MIB says: a large process is saved in other ways than a small one. */
MAYBE void take_memory(void)
{
	const char *wanted = getenv("ORCHTEST_MIB");
	size_t size = wanted ? (size_t)atoi(wanted) << 20 : 0;
	char *memory;

	if (!size)
		return;
	memory = OK(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	for (size_t at = 0; at < size; at += 4096)
		memory[at] = 1;
}

MAYBE void begin(int argc, char **argv)
{
	if (argc < 2 || strlen(argv[1]) >= sizeof test_directory) {
		fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
		_exit(97);
	}
	strcpy(test_directory, argv[1]);
	take_memory();
}

MAYBE void ready(void) { publish("ready", "ready\n"); }

MAYBE void hold(void)
{
	/* On the stack: processes that share memory without being threads share thread-local storage too, and the
	 * kernel reads the path again when the call is restarted. */
	char path[sizeof test_directory + 4];
	int fd;
	snprintf(path, sizeof path, "%s/go", test_directory);
	do
		fd = open(path, O_RDONLY | O_CLOEXEC);
	while (fd < 0 && errno == EINTR);
	OK(fd);
	close(fd);
}

MAYBE void ready_and_hold(void)
{
	ready();
	hold();
}

__attribute__((unused, noreturn)) static void pass(void)
{
	publish("result", "PASS");
	_exit(0);
}

/* Wait for a child that must exit with 0. */
MAYBE void reap(pid_t child)
{
	int status;
	pid_t got;
	do
		got = waitpid(child, &status, __WALL);
	while (got < 0 && errno == EINTR);
	OK(got);
	SAME(got, child);
	if (WIFSIGNALED(status))
		FAIL("child %d died of signal %d", child, WTERMSIG(status));
	SAME(WEXITSTATUS(status), 0);
}

/* A gate: processes that set themselves up say so, and their parent waits for all of them.
 * The pipe is gone once everybody has passed. */
struct gate {
	int fds[2];
};
MAYBE void gate_make(struct gate *gate) { OK(pipe2(gate->fds, O_CLOEXEC)); }
MAYBE void gate_child_is_set(struct gate *gate)
{
	close(gate->fds[0]);
	SAME(write(gate->fds[1], "x", 1), 1);
	close(gate->fds[1]);
}
MAYBE void gate_wait(struct gate *gate, int count)
{
	char byte;
	close(gate->fds[1]);
	while (count--) {
		ssize_t got;
		do
			got = read(gate->fds[0], &byte, 1);
		while (got < 0 && errno == EINTR);
		SAME(got, 1);
	}
	close(gate->fds[0]);
}

/* Shared memory between a process and what it forks. */
MAYBE void *shared(size_t size)
{
	return OK(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
}
MAYBE void *private(size_t size)
{
	return OK(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

/* Wait until a variable that somebody else sets has this value; give up after a minute. */
MAYBE void await(volatile int *variable, int value)
{
	struct timespec start, now;
	clock_gettime(CLOCK_MONOTONIC, &start);
	while (__atomic_load_n(variable, __ATOMIC_SEQ_CST) != value) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec - start.tv_sec > 60)
			FAIL("waited in vain for a value of %d, it is %d", value, *variable);
		sched_yield();
	}
}
MAYBE void set(volatile int *variable, int value) { __atomic_store_n(variable, value, __ATOMIC_SEQ_CST); }

/* Contents that differ in every word of every page. */
MAYBE void fill(void *at, size_t size, uint64_t seed)
{
	uint64_t *words = at;
	for (size_t i = 0; i < size / 8; i++)
		words[i] = seed * 0x9e3779b97f4a7c15u + i * 0xbf58476d1ce4e5b9u + 1;
}
MAYBE void filled(const void *at, size_t size, uint64_t seed)
{
	const uint64_t *words = at;
	for (size_t i = 0; i < size / 8; i++)
		if (words[i] != seed * 0x9e3779b97f4a7c15u + i * 0xbf58476d1ce4e5b9u + 1)
			FAIL("contents %" PRIu64 " differ at byte %#zx of %#zx: %#" PRIx64, seed, i * 8, size, words[i]);
}
MAYBE void zeroed(const void *at, size_t size)
{
	const uint64_t *words = at;
	for (size_t i = 0; i < size / 8; i++)
		if (words[i])
			FAIL("byte %#zx of %#zx is not zero: %#" PRIx64, i * 8, size, words[i]);
}

/* Wait until a thread is blocked in one of two system calls. */
MAYBE void await_blocked_in(pid_t pid, pid_t tid, long call, long other)
{
	char path[64], line[256];
	struct timespec start, now;
	snprintf(path, sizeof path, "/proc/%d/task/%d/syscall", pid, tid);
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (;;) {
		int fd = OK(open(path, O_RDONLY | O_CLOEXEC));
		ssize_t got = read(fd, line, sizeof line - 1);
		close(fd);
		if (got > 0) {
			line[got] = 0;
			char *end;
			long number = strtol(line, &end, 10);
			if (end != line && (number == call || number == other))
				return;
		}
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec - start.tv_sec > 60)
			FAIL("%d does not block in call %ld but is at: %s", tid, call, line);
		sched_yield();
	}
}

MAYBE double seconds(clockid_t clock)
{
	struct timespec now;
	OK(clock_gettime(clock, &now));
	return now.tv_sec + now.tv_nsec / 1e9;
}

/* A line of /proc/self/status and the like, without its name. */
MAYBE char *proc_field(const char *path, const char *field)
{
	static _Thread_local char line[4096];
	FILE *file = fopen(path, "re");
	if (!file)
		FAIL("%s: %s", path, strerror(errno));
	while (fgets(line, sizeof line, file))
		if (strncmp(line, field, strlen(field)) == 0) {
			fclose(file);
			line[strcspn(line, "\n")] = 0;
			return line + strlen(field) + strspn(line + strlen(field), " \t");
		}
	FAIL("%s has no %s", path, field);
}
#endif
