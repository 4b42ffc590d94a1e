/* A session with a controlling terminal, argv[2], of which it keeps no descriptor. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	CHECK(argc == 3);
	close(OK(open(argv[2], O_RDWR | O_CLOEXEC)));
	close(OK(open("/dev/tty", O_RDWR | O_CLOEXEC)));
	ready_and_hold();
	close(OK(open("/dev/tty", O_RDWR | O_CLOEXEC)));
	pass();
}
