/* Inotify watches of files without a name, of one with an odd name; events that nobody has read are lost. */
#include "selfcheck.h"
#include <sys/inotify.h>

static void next(int fd, int watch, uint32_t mask)
{
	char buffer[sizeof(struct inotify_event) + NAME_MAX + 1];
	struct inotify_event *event = (struct inotify_event *)buffer;
	OK(read(fd, buffer, sizeof buffer));
	SAME(event->wd, watch);
	SAME(event->mask, mask);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	int fd = OK(inotify_init1(IN_NONBLOCK));
	int file = OK(open(in_directory("unlinked"), O_RDWR | O_CREAT, 0644)), odd = OK(open(in_directory("\xff"), O_RDWR | O_CREAT, 0644));
	OK(mkdir(in_directory("directory"), 0755));
	int directory = OK(open(in_directory("directory"), O_RDONLY | O_DIRECTORY));
	SAME(inotify_add_watch(fd, in_directory("unlinked"), IN_MODIFY), 1);
	SAME(inotify_add_watch(fd, in_directory("directory"), IN_ATTRIB), 2);
	SAME(inotify_add_watch(fd, in_directory("\xff"), IN_MODIFY), 3);
	OK(unlink(in_directory("unlinked")));
	OK(rmdir(in_directory("directory")));
	SAME(write(odd, "lost", 4), 4);
	ready_and_hold();
	char scrap[4096];
	while (read(fd, scrap, sizeof scrap) > 0)
		; /* they are there where nothing was lost */
	SAME(write(file, "x", 1), 1);
	next(fd, 1, IN_MODIFY);
	OK(fchmod(directory, 0700));
	next(fd, 2, IN_ATTRIB | IN_ISDIR);
	SAME(write(odd, "y", 1), 1);
	next(fd, 3, IN_MODIFY);
	FAILS(read(fd, scrap, sizeof scrap), EAGAIN);
	pass();
}
