/* A cgroup namespace: the job's own cgroup is the root that it sees. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	ready_and_hold();
	const char *path = proc_field("/proc/self/cgroup", "0::");
	if (strcmp(path, "/") != 0)
		FAIL("the cgroup is %s", path);
	pass();
}
