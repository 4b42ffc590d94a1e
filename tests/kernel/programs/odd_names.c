/* Names that are not UTF-8: of a file, a FIFO, an unlinked file, a mapped file, the working directory, the program. */
#include "selfcheck.h"

#define ODD "odd-\xff\xfe\x80-\xc3"

int main(int argc, char **argv)
{
	char path[PATH_MAX], directory[PATH_MAX], text[4] = "";
	begin(argc, argv);
	snprintf(directory, sizeof directory, "%s/%s", test_directory, ODD);
	OK(mkdir(directory, 0755));
	OK(chdir(directory));
	int fd = OK(open(ODD, O_RDWR | O_CREAT, 0644));
	SAME(write(fd, "abc", 3), 3);
	int mapped_from = OK(open(ODD, O_RDONLY));
	char *mapped = OK(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, mapped_from, 0));
	close(mapped_from);
	int ghost = OK(open("\xff-ghost", O_RDWR | O_CREAT, 0644));
	SAME(write(ghost, "def", 3), 3);
	OK(unlink("\xff-ghost"));
	OK(mkfifo("\xff-fifo", 0600));
	int fifo = OK(open("\xff-fifo", O_RDWR));
	SAME(write(fifo, "ghi", 3), 3);
	ready_and_hold();
	CHECK(getcwd(path, sizeof path) && strcmp(path, directory) == 0);
	CHECK(memcmp(mapped, "abc", 3) == 0);
	SAME(pread(fd, text, 3, 0), 3);
	CHECK(memcmp(text, "abc", 3) == 0);
	SAME(pread(ghost, text, 3, 0), 3);
	CHECK(memcmp(text, "def", 3) == 0);
	SAME(read(fifo, text, 3), 3);
	CHECK(memcmp(text, "ghi", 3) == 0);
	pass();
}
