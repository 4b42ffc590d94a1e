/* Named pipes: contents, both directions of opening, and one that is unlinked. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	char bytes[32];
	OK(mkfifo(in_directory("fifo"), 0600));
	OK(mkfifo(in_directory("lost"), 0600));
	int both = OK(open(in_directory("fifo"), O_RDWR));
	int reader = OK(open(in_directory("fifo"), O_RDONLY | O_NONBLOCK)), writer = OK(open(in_directory("fifo"), O_WRONLY | O_CLOEXEC));
	SAME(write(writer, "by name", 7), 7);
	int lost = OK(open(in_directory("lost"), O_RDWR));
	OK(unlink(in_directory("lost")));
	SAME(write(lost, "lost", 4), 4);
	ready_and_hold();
	SAME(read(reader, bytes, 3), 3);
	CHECK(memcmp(bytes, "by ", 3) == 0);
	SAME(read(both, bytes, sizeof bytes), 4);
	FAILS(read(reader, bytes, 1), EAGAIN);
	int fresh = OK(open(in_directory("fifo"), O_WRONLY | O_NONBLOCK));
	SAME(write(fresh, "new", 3), 3);
	SAME(read(reader, bytes, sizeof bytes), 3);
	SAME(read(lost, bytes, sizeof bytes), 4);
	close(both);
	close(writer);
	close(fresh);
	SAME(read(reader, bytes, 1), 0);
	pass();
}
