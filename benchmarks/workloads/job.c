/*
 * A job to checkpoint: it takes the shape it is told, says that it is ready, and proves itself when asked.
 *
 *   job KIND SIZE READY_FD ANSWER [CGROUP_PROCS]
 *
 *   mem      SIZE MiB of private anonymous memory, filled with a pseudo-random sequence
 *   huge     the same in huge pages, as far as the kernel has them
 *   tree     SIZE children that wait for a signal
 *   filled   SIZE children as above; each of them, and the first process, fills 1 MiB of its own
 *   threads  SIZE threads that wait on one condition variable
 *   forked   SIZE MiB of private memory as above, and WORKERS children that share it by copy-on-write
 *   files    SIZE descriptors: pipes, pairs of sockets, files, event counters; in as few processes as may have them
 *
 * One byte on READY_FD says that the shape is complete; the descriptor is closed after it. From then on the main
 * thread beats once a millisecond and keeps the longest gap between two beats: what a checkpoint costs the job, as
 * the job itself feels it. On SIGUSR1 it checks its memory, children or threads, writes "ok GAP_US" or "bad GAP_US"
 * to the file ANSWER, and ends. On SIGUSR2 (kind mem only) it writes its first REWRITTEN_MIB again, the same words,
 * then "wrote" to ANSWER, and goes on.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHILD_SAYS_FINE 7
#define WORKERS 8
#define MANY_THREADS 1000
#define SMALL_STACK (64 << 10)
#define HUGE_PAGE ((uintptr_t)2 << 20)
#define REWRITTEN_MIB 16
#define FILLED_MIB 1

static uint64_t seed = 0x9e3779b97f4a7c15;
static uint64_t *words;
static size_t word_count;

static pid_t *children;
static pthread_t *threads;
static size_t member_count;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t released = PTHREAD_COND_INITIALIZER;
static pthread_cond_t waiting = PTHREAD_COND_INITIALIZER;
static size_t threads_waiting, threads_released;
static int go;

static void die(const char *what)
{
	perror(what);
	exit(2);
}

static uint64_t next_word(uint64_t state)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static void *map_private(size_t size)
{
	void *mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (mapped == MAP_FAILED)
		die("mmap");
	return mapped;
}

static void fill(size_t mib)
{
	size_t count = (mib << 20) / sizeof(*words);
	uint64_t state = seed;

	for (size_t i = 0; i < count && i < word_count; i++)
		words[i] = state = next_word(state);
}

static void start_mem(size_t mib)
{
	word_count = (mib << 20) / sizeof(*words);
	words = map_private(mib << 20);
	fill(mib);
}

/* The advice parts what it is given from the rest of the mapping, which is never touched. */
static void start_huge(size_t mib)
{
	uintptr_t mapped = (uintptr_t)map_private((mib << 20) + HUGE_PAGE);

	word_count = (mib << 20) / sizeof(*words);
	words = (uint64_t *)((mapped + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1));
	if (madvise(words, mib << 20, MADV_HUGEPAGE))
		die("madvise");
	fill(mib);
}

/* What each process of a tree fills is another sequence; an odd seed stays odd, and so is never nought. */
static void start_own(size_t number)
{
	seed *= 2 * number + 1;
	start_mem(FILLED_MIB);
}

static int check_mem(void)
{
	uint64_t state = seed;

	for (size_t i = 0; i < word_count; i++) {
		state = next_word(state);
		if (words[i] != state)
			return 0;
	}
	return 1;
}

static void take_no_shape(size_t number)
{
	(void)number;
}

static int say_fine(void)
{
	return 1;
}

/* Children are numbered from 1 on; this returns once each has taken its shape. */
static void start_tree(size_t count, int ready_fd, const sigset_t *asked, void (*shape)(size_t), int (*check)(void))
{
	int shaped[2];
	char byte;

	children = calloc(count, sizeof(*children));
	if (!children || pipe(shaped))
		die("tree");
	for (member_count = 0; member_count < count; member_count++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork");
		if (pid == 0) {
			close(ready_fd);
			shape(member_count + 1);
			if (write(shaped[1], "r", 1) != 1 || close(shaped[0]) || close(shaped[1]))
				die("shaped");
			while (sigwaitinfo(asked, NULL) != SIGUSR1)
				;
			_exit(check() ? CHILD_SAYS_FINE : 1);
		}
		children[member_count] = pid;
	}
	close(shaped[1]);
	for (size_t i = 0; i < member_count; i++)
		if (read(shaped[0], &byte, 1) != 1)
			die("a child");
	close(shaped[0]);
}

static int check_tree(void)
{
	int fine = 1;

	for (size_t i = 0; i < member_count; i++)
		fine &= kill(children[i], SIGUSR1) == 0;
	for (size_t i = 0; i < member_count; i++) {
		int status;

		if (waitpid(children[i], &status, 0) != children[i])
			fine = 0;
		else
			fine &= WIFEXITED(status) && WEXITSTATUS(status) == CHILD_SAYS_FINE;
	}
	return fine;
}

/* Descriptors of one process: the ends of a pipe, those of a pair of sockets, a file, an event counter, and again. */
static int (*files)[6];
static size_t files_count, files_each;

static void open_files(size_t number)
{
	(void)number;
	files = calloc(files_each / 6 + 1, sizeof(*files));
	if (!files)
		die("calloc");
	for (files_count = 0; files_count < files_each / 6; files_count++) {
		int *six = files[files_count], own = files_count;

		six[4] = open("/dev/null", O_RDONLY);
		six[5] = eventfd(own, EFD_NONBLOCK);
		if (pipe(six) || socketpair(AF_UNIX, SOCK_STREAM, 0, six + 2) || six[4] < 0 || six[5] < 0)
			die("files");
		if (write(six[1], &own, sizeof(own)) != sizeof(own) || write(six[3], &own, sizeof(own)) != sizeof(own))
			die("write");
	}
}

static int check_files(void)
{
	for (size_t i = 0; i < files_count; i++) {
		int *six = files[i], through_pipe = -1, through_socket = -1;
		uint64_t counted = 0;
		char byte;

		if (read(six[0], &through_pipe, sizeof(int)) != sizeof(int) || through_pipe != (int)i)
			return 0;
		if (read(six[2], &through_socket, sizeof(int)) != sizeof(int) || through_socket != (int)i)
			return 0;
		if (read(six[4], &byte, 1) != 0)
			return 0;
		if (i && (read(six[5], &counted, sizeof(counted)) != sizeof(counted) || counted != i))
			return 0;
	}
	return 1;
}

/* In this process and, if that may not have so many, in children, which end as those of a tree if all is well. */
static void start_files(size_t count, int ready_fd, const sigset_t *asked)
{
	const size_t spare = 60;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		die("getrlimit");
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit))
		die("setrlimit");
	size_t most = limit.rlim_max - spare, processes = (count + most - 1) / most;
	files_each = count / processes;
	start_tree(processes - 1, ready_fd, asked, open_files, check_files);
	open_files(0);
}

static void *thread_main(void *unused)
{
	(void)unused;
	pthread_mutex_lock(&lock);
	threads_waiting++;
	pthread_cond_signal(&waiting);
	while (!go)
		pthread_cond_wait(&released, &lock);
	threads_released++;
	pthread_mutex_unlock(&lock);
	return NULL;
}

static void start_threads(size_t count)
{
	pthread_attr_t attributes;

	threads = calloc(count, sizeof(*threads));
	if (!threads || pthread_attr_init(&attributes))
		die("calloc");
	if (count > MANY_THREADS && pthread_attr_setstacksize(&attributes, SMALL_STACK))
		die("pthread_attr_setstacksize");
	for (member_count = 0; member_count < count; member_count++)
		if (pthread_create(&threads[member_count], &attributes, thread_main, NULL))
			die("pthread_create");
	pthread_mutex_lock(&lock);
	while (threads_waiting < count)
		pthread_cond_wait(&waiting, &lock);
	pthread_mutex_unlock(&lock);
}

static int check_threads(void)
{
	pthread_mutex_lock(&lock);
	go = 1;
	pthread_cond_broadcast(&released);
	pthread_mutex_unlock(&lock);
	for (size_t i = 0; i < member_count; i++)
		if (pthread_join(threads[i], NULL))
			return 0;
	return threads_released == member_count;
}

static int64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) || close(fd))
		die(path);
}

static int64_t beat_until_asked(const sigset_t *asked, const char *answer)
{
	const struct timespec beat = { .tv_nsec = 1000000 };
	int64_t last = now_us(), longest = 0;

	for (;;) {
		int got = sigtimedwait(asked, NULL, &beat);
		int64_t now = now_us();

		if (now - last > longest)
			longest = now - last;
		last = now;
		if (got == SIGUSR1)
			return longest;
		if (got == SIGUSR2) {
			fill(REWRITTEN_MIB);
			write_file(answer, "wrote\n");
		}
	}
}

int main(int argc, char **argv)
{
	sigset_t asked;
	char text[64];
	int64_t gap_us;
	int fine;

	if (argc < 5)
		return 2;
	if (argc > 5)
		write_file(argv[5], "0");

	const char *kind = argv[1];
	size_t size = strtoul(argv[2], NULL, 10);
	int ready_fd = atoi(argv[3]);

	sigemptyset(&asked);
	sigaddset(&asked, SIGUSR1);
	if (!strcmp(kind, "mem"))
		sigaddset(&asked, SIGUSR2);
	if (sigprocmask(SIG_BLOCK, &asked, NULL))
		die("sigprocmask");

	if (!strcmp(kind, "mem"))
		start_mem(size);
	else if (!strcmp(kind, "huge"))
		start_huge(size);
	else if (!strcmp(kind, "tree"))
		start_tree(size, ready_fd, &asked, take_no_shape, say_fine);
	else if (!strcmp(kind, "filled")) {
		start_tree(size, ready_fd, &asked, start_own, check_mem);
		start_own(0);
	} else if (!strcmp(kind, "forked")) {
		start_mem(size);
		start_tree(WORKERS, ready_fd, &asked, take_no_shape, check_mem);
	} else if (!strcmp(kind, "threads"))
		start_threads(size);
	else if (!strcmp(kind, "files"))
		start_files(size, ready_fd, &asked);
	else
		return 2;

	if (write(ready_fd, "r", 1) != 1 || close(ready_fd))
		die("ready");
	gap_us = beat_until_asked(&asked, argv[4]);

	if (!strcmp(kind, "mem") || !strcmp(kind, "huge"))
		fine = check_mem();
	else if (!strcmp(kind, "tree"))
		fine = check_tree();
	else if (!strcmp(kind, "forked") || !strcmp(kind, "filled"))
		fine = check_mem() & check_tree();
	else if (!strcmp(kind, "files"))
		fine = check_files() & check_tree();
	else
		fine = check_threads();
	snprintf(text, sizeof(text), "%s %lld\n", fine ? "ok" : "bad", (long long)gap_us);
	write_file(argv[4], text);
	return !fine;
}
