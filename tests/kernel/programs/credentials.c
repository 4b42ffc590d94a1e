/* User and group ids, all four of each, and supplementary groups; as another user. */
#include "selfcheck.h"
#include <grp.h>
#include <sys/fsuid.h>

int main(int argc, char **argv)
{
	begin(argc, argv);
	gid_t groups[] = {3001, 3002, 40000, 65534}, groups_now[16];
	OK(setgroups(4, groups));
	bool mixed = argc > 2 && strcmp(argv[2], "mixed") == 0;
	if (mixed) {
		OK(setresgid(2001, 2002, 2003));
		OK(setresuid(1001, 0, 1003));
		setfsgid(2004);
		setfsuid(1004);
	} else {
		OK(setresgid(2001, 2001, 2001));
		OK(setresuid(1001, 1001, 1001));
	}
	char uids[64], gids[64];
	strcpy(uids, proc_field("/proc/self/status", "Uid:"));
	strcpy(gids, proc_field("/proc/self/status", "Gid:"));
	ready_and_hold();
	if (strcmp(uids, proc_field("/proc/self/status", "Uid:")) != 0)
		FAIL("uids are %s", proc_field("/proc/self/status", "Uid:"));
	if (strcmp(gids, proc_field("/proc/self/status", "Gid:")) != 0)
		FAIL("gids are %s", proc_field("/proc/self/status", "Gid:"));
	SAME(getgroups(16, groups_now), 4);
	CHECK(memcmp(groups, groups_now, sizeof groups) == 0);
	if (!mixed)
		FAILS(setuid(0), EPERM);
	pass();
}
