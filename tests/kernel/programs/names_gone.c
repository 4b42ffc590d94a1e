/* Files whose name is gone, or leads elsewhere, while they have another one; open and mapped. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	char byte[8] = "";
	begin(argc, argv);
	const char *first = in_directory("first"), *kept = in_directory("kept");
	int fd = OK(open(first, O_RDWR | O_CREAT | O_EXCL, 0644)), only_read = OK(open(first, O_RDONLY));
	SAME(write(fd, "abcdefgh", 8), 8);
	SAME(lseek(only_read, 3, SEEK_SET), 3);
	char *mapped = OK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, only_read, 0));
	OK(link(first, kept));
	OK(unlink(first));
	int other = OK(open(first, O_RDWR | O_CREAT | O_EXCL, 0644));
	SAME(write(other, "something else", 14), 14);
	ready_and_hold();
	struct stat status, of_kept, of_other;
	OK(fstat(fd, &status));
	OK(stat(kept, &of_kept));
	SAME(status.st_ino, of_kept.st_ino);
	SAME(status.st_nlink, 1);
	OK(fstat(other, &of_other));
	CHECK(of_other.st_ino != status.st_ino);
	SAME(read(only_read, byte, 8), 5);
	CHECK(memcmp(byte, "defgh", 5) == 0);
	CHECK(memcmp(mapped, "abcdefgh", 8) == 0);
	SAME(write(fd, "!", 1), 1);
	SAME(pread(OK(open(kept, O_RDONLY)), byte, 1, 8), 1);
	SAME(byte[0], '!');
	pass();
}
