/* Regular files: position, status flags, close-on-exec, numbers far up, append and read-only. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	char bytes[32] = "";
	int plain = OK(open(in_directory("a"), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
	SAME(write(plain, "0123456789abcdef", 16), 16);
	OK(lseek(plain, 5, SEEK_SET));
	int append = OK(open(in_directory("b"), O_WRONLY | O_CREAT | O_APPEND, 0600));
	SAME(write(append, "first,", 6), 6);
	int readonly = OK(open(in_directory("a"), O_RDONLY | O_NOATIME | O_NONBLOCK));
	OK(lseek(readonly, 10, SEEK_SET));
	int sync = OK(open(in_directory("c"), O_RDWR | O_CREAT | O_SYNC | O_TRUNC, 0644));
	OK(lseek(sync, 1 << 20, SEEK_SET)); /* beyond the end */
	int high = OK(fcntl(plain, F_DUPFD, 190));
	ready_and_hold();
	SAME(fcntl(plain, F_GETFD), FD_CLOEXEC);
	SAME(fcntl(append, F_GETFD), 0);
	SAME(fcntl(high, F_GETFD), 0);
	SAME(fcntl(plain, F_GETFL) & ~O_LARGEFILE & ~0100000, O_RDWR);
	SAME(fcntl(append, F_GETFL) & ~0100000, O_WRONLY | O_APPEND);
	SAME(fcntl(readonly, F_GETFL) & ~0100000, O_RDONLY | O_NOATIME | O_NONBLOCK);
	SAME(fcntl(sync, F_GETFL) & ~0100000, O_RDWR | O_SYNC);
	SAME(lseek(sync, 0, SEEK_CUR), 1 << 20);
	SAME(read(plain, bytes, 3), 3);
	CHECK(strcmp(bytes, "567") == 0);
	SAME(lseek(high, 0, SEEK_CUR), 8);
	SAME(read(readonly, bytes, 3), 3);
	CHECK(strcmp(bytes, "abc") == 0);
	FAILS(write(readonly, "x", 1), EBADF);
	SAME(write(append, "second", 6), 6);
	int check = OK(open(in_directory("b"), O_RDONLY));
	SAME(read(check, bytes, 32), 12);
	CHECK(memcmp(bytes, "first,second", 12) == 0);
	pass();
}
