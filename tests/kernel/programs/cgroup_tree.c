/* Cgroups of version 2 below the job's own: processes in them, threads in threaded ones, settings, owners. */
#include "selfcheck.h"
#include <pthread.h>

static pthread_barrier_t set_up, go_on;

static void own_place(const char *path, char *place, size_t size)
{
	char line[2048];
	FILE *file = fopen(path, "re");
	if (!file)
		FAIL("%s: %s", path, strerror(errno));
	while (fgets(line, sizeof line, file))
		if (strncmp(line, "0::", 3) == 0) {
			line[strcspn(line, "\n")] = 0;
			snprintf(place, size, "%s", line + 3);
			fclose(file);
			return;
		}
	FAIL("%s has no line of cgroup v2", path);
}

static char top[1024], home[512];

static const char *file_of(const char *cgroup, const char *name)
{
	static _Thread_local char path[2][2048];
	static _Thread_local int turn;
	turn = !turn;
	snprintf(path[turn], sizeof path[turn], "%s/%s/%s", top, cgroup, name);
	return path[turn];
}

static void write_to(const char *cgroup, const char *name, const char *text)
{
	int fd = open(file_of(cgroup, name), O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		FAIL("%s of %s to %s: %s", name, cgroup, text, strerror(errno));
	close(fd);
}

static void has(const char *cgroup, const char *name, const char *text)
{
	char got[256] = "";
	int fd = OK(open(file_of(cgroup, name), O_RDONLY | O_CLOEXEC));
	OK(read(fd, got, sizeof got - 1));
	close(fd);
	got[strcspn(got, "\n")] = 0;
	if (strcmp(got, text) != 0)
		FAIL("%s of %s is %s, not %s", name, cgroup, got, text);
}

static void make(const char *cgroup) { OK(mkdir(file_of(cgroup, ""), 0755)); }

static void is_in(const char *path, const char *cgroup)
{
	char place[1024], wanted[1024];
	own_place(path, place, sizeof place);
	snprintf(wanted, sizeof wanted, "%s%s%s", home, *cgroup ? "/" : "", cgroup);
	if (strcmp(place, wanted) != 0)
		FAIL("%s: in %s, not in %s", path, place, wanted);
}

static void *work(void *argument)
{
	char tid[16];
	snprintf(tid, sizeof tid, "%d", gettid());
	write_to("d/t2", "cgroup.threads", tid);
	pthread_barrier_wait(&set_up);
	pthread_barrier_wait(&go_on);
	is_in("/proc/thread-self/cgroup", "d/t2");
	return argument;
}

static void with_threads(struct gate *gate)
{
	pthread_t thread;
	char text[16];
	snprintf(text, sizeof text, "%d", getpid());
	write_to("d", "cgroup.procs", text);
	write_to("d/t1", "cgroup.type", "threaded");
	write_to("d/t2", "cgroup.type", "threaded");
	write_to("d/t1", "cgroup.threads", text);
	pthread_barrier_init(&set_up, NULL, 2);
	pthread_barrier_init(&go_on, NULL, 2);
	SAME(pthread_create(&thread, NULL, work, NULL), 0);
	pthread_barrier_wait(&set_up);
	gate_child_is_set(gate);
	hold();
	own_place("/proc/self/cgroup", home, sizeof home);
	*strstr(home, "/d/t1") = 0;
	is_in("/proc/thread-self/cgroup", "d/t1");
	pthread_barrier_wait(&go_on);
	SAME(pthread_join(thread, NULL), 0);
	_exit(0);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	char text[16];
	struct gate gate;
	struct stat status;
	own_place("/proc/self/cgroup", home, sizeof home);
	snprintf(top, sizeof top, "%s%s", argc > 2 ? argv[2] : "/sys/fs/cgroup/unified", home);
	if (strcmp(home, "/") == 0) { /* without orch: whatever it would do would be done to the machine's */
		ready_and_hold();
		pass();
	}
	make("a");
	make("a/b");
	make("d");
	make("d/t1");
	make("d/t2");
	gate_make(&gate);
	pid_t in_b = OK(fork());
	if (in_b == 0) {
		snprintf(text, sizeof text, "%d", getpid());
		write_to("a/b", "cgroup.procs", text);
		gate_child_is_set(&gate);
		hold();
		own_place("/proc/self/cgroup", home, sizeof home);
		*strstr(home, "/a/b") = 0;
		_exit(0);
	}
	pid_t threads = OK(fork());
	if (threads == 0)
		with_threads(&gate);
	gate_wait(&gate, 2);
	write_to("", "cgroup.max.descendants", "17");
	write_to("a", "cgroup.max.depth", "3");
	write_to("a/b", "cgroup.max.descendants", "5");
	write_to("d/t1", "cgroup.max.depth", "0");
	OK(chown(file_of("a", ""), 1234, 2345));
	OK(chown(file_of("a", "cgroup.procs"), 1234, 2345));
	ready_and_hold();
	own_place("/proc/self/cgroup", home, sizeof home);
	snprintf(top, sizeof top, "%s%s", argc > 2 ? argv[2] : "/sys/fs/cgroup/unified", home);
	has("", "cgroup.max.descendants", "17");
	has("a", "cgroup.max.depth", "3");
	has("a", "cgroup.max.descendants", "max");
	has("a/b", "cgroup.max.descendants", "5");
	has("d/t1", "cgroup.max.depth", "0");
	has("d/t1", "cgroup.type", "threaded");
	has("d", "cgroup.type", "domain threaded");
	OK(stat(file_of("a", ""), &status));
	SAME(status.st_uid, 1234);
	OK(stat(file_of("a", "cgroup.procs"), &status));
	SAME(status.st_gid, 2345);
	reap(in_b);
	reap(threads);
	pass();
}
