/* Groups of fanotify with their marks: on inodes with and without a name, on a mount, on a file system. */
#include "selfcheck.h"
#include <linux/fanotify.h>

#ifndef FAN_MARK_IGNORE
#define FAN_MARK_IGNORE 0x400
#endif

static int group(unsigned flags) { return OK(syscall(SYS_fanotify_init, flags, O_RDONLY | O_LARGEFILE)); }

static void mark(int fd, unsigned flags, uint64_t mask, const char *path)
{
	OK(syscall(SYS_fanotify_mark, fd, FAN_MARK_ADD | flags, mask, AT_FDCWD, path));
}

static int by_text(const void *a, const void *b) { return strcmp(a, b); }

/* What fdinfo shows, sorted, without the number of a mount, which is new. */
static void portrait(int fd, char text[4096])
{
	static char lines[32][256];
	char path[64];
	int count = 0;
	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
	FILE *file = fopen(path, "re");
	CHECK(file);
	while (count < 32 && fgets(lines[count], sizeof *lines, file)) {
		char *mount = strstr(lines[count], "mnt_id:");
		if (strncmp(lines[count], "fanotify", 8) != 0)
			continue;
		if (mount)
			memmove(mount, mount + strcspn(mount, " "), strlen(mount + strcspn(mount, " ")) + 1);
		count++;
	}
	fclose(file);
	qsort(lines, count, sizeof *lines, by_text);
	text[0] = 0;
	for (int i = 0; i < count; i++)
		strcat(text, lines[i]);
}

static void tells(int fd, uint64_t mask)
{
	char buffer[4096];
	struct fanotify_event_metadata *event = (void *)buffer;
	CHECK(OK(read(fd, buffer, sizeof buffer)) >= (ssize_t)sizeof *event);
	if (event->mask != mask)
		FAIL("told of %llx, not %" PRIx64, (unsigned long long)event->mask, mask);
	SAME(event->pid, getpid());
	if (event->fd >= 0)
		close(event->fd);
	FAILS(read(fd, buffer, sizeof buffer), EAGAIN);
}

int main(int argc, char **argv)
{
	enum { GROUPS = 3 };
	static char before[GROUPS][4096], after[4096];
	int groups[GROUPS];
	begin(argc, argv);
	OK(mkdir(in_directory("../watched"), 0755));
	close(OK(open(in_directory("../watched/file"), O_CREAT | O_WRONLY, 0644)));
	close(OK(open(in_directory("../noted"), O_CREAT | O_WRONLY, 0644)));
	int gone = OK(open(in_directory("../gone"), O_CREAT | O_RDWR, 0644));
	groups[0] = group(FAN_CLASS_NOTIF | FAN_NONBLOCK | FAN_UNLIMITED_QUEUE);
	mark(groups[0], 0, FAN_OPEN, in_directory("../noted"));
	mark(groups[0], FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY, FAN_CLOSE_WRITE, in_directory("../noted"));
	mark(groups[0], 0, FAN_MODIFY | FAN_EVENT_ON_CHILD | FAN_ONDIR, in_directory("../watched"));
	int of_gone = group(FAN_CLASS_NOTIF | FAN_NONBLOCK); /* whose inode is a new one */
	mark(of_gone, 0, FAN_MODIFY, in_directory("../gone"));
	mark(groups[0], FAN_MARK_MOUNT, FAN_OPEN_EXEC, "/proc");
	groups[1] = group(FAN_CLASS_NOTIF | FAN_REPORT_DFID_NAME | FAN_CLOEXEC);
	mark(groups[1], 0, FAN_CREATE | FAN_DELETE | FAN_ONDIR, in_directory("../watched"));
	OK(fcntl(groups[1], F_SETFL, O_NONBLOCK));
	groups[2] = group(FAN_CLASS_CONTENT | FAN_NONBLOCK);
	mark(groups[2], FAN_MARK_FILESYSTEM, FAN_OPEN_EXEC, "/sys");
	OK(unlink(in_directory("../gone")));
	for (int i = 0; i < GROUPS; i++)
		portrait(groups[i], before[i]);
	ready_and_hold();
	for (int i = 0; i < GROUPS; i++) {
		portrait(groups[i], after);
		if (strcmp(before[i], after) != 0)
			FAIL("group %d was\n%s and is\n%s", i, before[i], after);
		SAME(!(fcntl(groups[i], F_GETFD) & FD_CLOEXEC), i != 1);
	}
	close(OK(open(in_directory("../noted"), O_RDONLY)));
	tells(groups[0], FAN_OPEN);
	int file = OK(open(in_directory("../watched/file"), O_WRONLY));
	SAME(write(file, "x", 1), 1);
	tells(groups[0], FAN_MODIFY);
	SAME(write(gone, "x", 1), 1);
	tells(of_gone, FAN_MODIFY);
	OK(mkdir(in_directory("../watched/new"), 0755));
	tells(groups[1], FAN_CREATE | FAN_ONDIR);
	OK(rmdir(in_directory("../watched/new")));
	tells(groups[1], FAN_DELETE | FAN_ONDIR);
	pass();
}
