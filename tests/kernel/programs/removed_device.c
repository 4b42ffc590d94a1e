/* A device node without state that was removed while open. */
#include "selfcheck.h"
#include <sys/sysmacros.h>

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct stat was, is;
	char page[64];
	OK(mknod(in_directory("nothing"), S_IFCHR | 0640, makedev(1, 3)));
	OK(mknod(in_directory("zeros"), S_IFCHR | 0600, makedev(1, 5)));
	int nothing = OK(open(in_directory("nothing"), O_WRONLY | O_APPEND));
	int zeros = OK(open(in_directory("zeros"), O_RDONLY | O_NONBLOCK));
	OK(unlink(in_directory("nothing")));
	OK(unlink(in_directory("zeros")));
	OK(fstat(nothing, &was));
	ready_and_hold();
	OK(fstat(nothing, &is));
	SAME(is.st_mode, was.st_mode);
	SAME(is.st_rdev, was.st_rdev);
	SAME(is.st_nlink, 0);
	SAME(write(nothing, "x", 1), 1);
	SAME(fcntl(nothing, F_GETFL) & (O_ACCMODE | O_APPEND), O_WRONLY | O_APPEND);
	SAME(fcntl(zeros, F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_RDONLY | O_NONBLOCK);
	SAME(read(zeros, page, sizeof page), sizeof page);
	zeroed(page, sizeof page);
	pass();
}
