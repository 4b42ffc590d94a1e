/* A file without a name: contents with a hole, position, shared by two processes; also O_TMPFILE. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	volatile int *stage = shared(PAGE);
	char *want = private(8 * PAGE), *got = private(32 * PAGE);
	fill(want, 8 * PAGE, 6);
	int fd = OK(open(in_directory("gone"), O_RDWR | O_CREAT, 0640));
	int temporary = OK(open(test_directory, O_RDWR | O_TMPFILE, 0600));
	int reader = OK(open(in_directory("gone"), O_RDONLY));
	OK(unlink(in_directory("gone")));
	SAME(pwrite(fd, want, 8 * PAGE, 16 * PAGE), 8 * PAGE);
	SAME(pwrite(temporary, want, 3000, 0), 3000);
	OK(lseek(fd, 777, SEEK_SET));
	OK(lseek(reader, 17 * PAGE, SEEK_SET));
	pid_t child = OK(fork());
	if (child == 0) {
		await(stage, 1);
		SAME(lseek(fd, 0, SEEK_CUR), 777);
		SAME(pwrite(fd, "child", 5, 0), 5);
		OK(lseek(fd, 999, SEEK_SET));
		_exit(0);
	}
	ready_and_hold();
	struct stat a, b;
	OK(fstat(fd, &a));
	OK(fstat(reader, &b));
	SAME(a.st_ino, b.st_ino);
	SAME(a.st_nlink, 0);
	SAME(a.st_size, 24 * PAGE);
	SAME(a.st_mode & 0777, 0640);
	set(stage, 1);
	reap(child);
	SAME(lseek(fd, 0, SEEK_CUR), 999);
	SAME(pread(reader, got, 5, 0), 5);
	CHECK(memcmp(got, "child", 5) == 0);
	SAME(pread(reader, got, 16 * PAGE - 5, 5), 16 * PAGE - 5);
	zeroed(got, 16 * PAGE - 8);
	SAME(read(reader, got, 7 * PAGE), 7 * PAGE);
	CHECK(memcmp(got, want + PAGE, 7 * PAGE) == 0);
	SAME(pread(temporary, got, 8 * PAGE, 0), 3000);
	CHECK(memcmp(got, want, 3000) == 0);
	pass();
}
