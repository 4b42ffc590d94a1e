/* A file that is only read. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	char bytes[8] = "";
	int made = OK(open(in_directory("a"), O_WRONLY | O_CREAT, 0644));
	SAME(write(made, "0123456789", 10), 10);
	close(made);
	int fd = OK(open(in_directory("a"), O_RDONLY));
	OK(lseek(fd, 4, SEEK_SET));
	ready_and_hold();
	SAME(read(fd, bytes, 3), 3);
	CHECK(strcmp(bytes, "456") == 0);
	pass();
}
