/* no_new_privs, and capabilities dropped to nothing by a user without any. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	OK(setresgid(1001, 1001, 1001));
	OK(setresuid(1001, 1001, 1001));
	OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	ready_and_hold();
	SAME(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
	CHECK(strcmp(proc_field("/proc/self/status", "CapPrm:"), "0000000000000000") == 0);
	CHECK(strcmp(proc_field("/proc/self/status", "CapEff:"), "0000000000000000") == 0);
	pass();
}
