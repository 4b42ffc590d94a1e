/* The reading end of the FIFO `outside`, whose other end somebody else has. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	char bytes[8];
	int fd = OK(open(in_directory("outside"), O_RDONLY | O_NONBLOCK));
	ready_and_hold();
	SAME(read(fd, bytes, sizeof bytes), 5);
	pass();
}
