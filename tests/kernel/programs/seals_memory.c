/* mseal(2): memory whose mapping cannot change any more. */
#include "selfcheck.h"

#ifndef SYS_mseal
#define SYS_mseal 462
#endif

int main(int argc, char **argv)
{
	begin(argc, argv);
	char *page = private(PAGE);
	OK(syscall(SYS_mseal, page, PAGE, 0UL));
	ready_and_hold();
	FAILS(munmap(page, PAGE), EPERM);
	pass();
}
