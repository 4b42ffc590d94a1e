/* Cgroups of a version 1 hierarchy, mounted at argv[2]: each thread's own, owners, settings, and empty ones. */
#include "selfcheck.h"
#include <pthread.h>

static const char *top, *name;
static volatile int stage;

static const char *in_top(const char *path)
{
	static _Thread_local char text[2][512];
	static _Thread_local int turn;
	turn = !turn;
	snprintf(text[turn], sizeof text[turn], "%s/%s", top, path);
	return text[turn];
}

static void say(const char *path, const char *what)
{
	int fd = OK(open(in_top(path), O_WRONLY | O_CLOEXEC));
	SAME(write(fd, what, strlen(what)), strlen(what));
	close(fd);
}

static void be_in(const char *cgroup)
{
	char key[128];
	const char *line;
	snprintf(key, sizeof key, ":name=%s:", name);
	FILE *file = fopen("/proc/thread-self/cgroup", "re");
	static _Thread_local char text[512];
	CHECK(file);
	while (fgets(text, sizeof text, file)) {
		text[strcspn(text, "\n")] = 0;
		line = strstr(text, key);
		if (!line)
			continue;
		if (strcmp(line + strlen(key), cgroup) != 0)
			FAIL("in %s, not %s", line, cgroup);
		fclose(file);
		return;
	}
	FAIL("no hierarchy %s", name);
}

static void *work(void *argument)
{
	say("a/b/tasks", "0");
	be_in("/a/b");
	set(&stage, 1);
	await(&stage, 2);
	be_in("/a/b");
	return argument;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	top = argv[2], name = argv[3];
	struct gate gate;
	gate_make(&gate);
	OK(mkdir(in_top("a"), 0755));
	OK(mkdir(in_top("a/b"), 0755));
	OK(mkdir(in_top("a/b/empty"), 0700));
	OK(chmod(in_top("a/b/empty"), 0700));
	OK(chown(in_top("a"), 1000, 1001));
	OK(chown(in_top("a/tasks"), 1000, 1001));
	OK(chmod(in_top("a/tasks"), 0664));
	say("a/b/notify_on_release", "1");
	pid_t elsewhere = OK(fork());
	if (!elsewhere) {
		gate_child_is_set(&gate);
		hold();
		be_in("/");
		_exit(0);
	}
	gate_wait(&gate, 1);
	say("a/cgroup.procs", "0");
	pthread_t thread;
	pthread_create(&thread, NULL, work, NULL);
	await(&stage, 1);
	ready_and_hold();
	be_in("/a");
	set(&stage, 2);
	SAME(pthread_join(thread, NULL), 0);
	reap(elsewhere);
	struct stat status;
	OK(stat(in_top("a/b/empty"), &status));
	SAME(status.st_mode & 07777, 0700);
	OK(stat(in_top("a"), &status));
	SAME(status.st_uid, 1000);
	OK(stat(in_top("a/tasks"), &status));
	SAME(status.st_gid, 1001);
	SAME(status.st_mode & 07777, 0664);
	char value[8] = "";
	int fd = OK(open(in_top("a/b/notify_on_release"), O_RDONLY | O_CLOEXEC));
	OK(read(fd, value, sizeof value - 1));
	close(fd);
	CHECK(value[0] == '1');
	say("cgroup.procs", "0");
	pass();
}
