/* Files whose contents the kernel makes up: of sysfs, of the process's cgroup, of /proc beside processes. */
#include "selfcheck.h"

static int cgroup_file(const char *name)
{
	char line[1024], path[2048], *colon = NULL, *root = NULL;
	FILE *file = fopen("/proc/self/cgroup", "re");
	while (file && fgets(line, sizeof line, file))
		if (strncmp(line, "0::", 3) == 0) {
			colon = strdup(line + 3);
			colon[strcspn(colon, "\n")] = 0;
		}
	fclose(file);
	file = fopen("/proc/self/mountinfo", "re");
	while (file && fgets(line, sizeof line, file))
		if (strstr(line, " - cgroup2 ")) {
			char *mountpoint = NULL;
			if (sscanf(line, "%*d %*d %*s %*s %ms", &mountpoint) == 1)
				root = mountpoint;
		}
	fclose(file);
	if (!colon || !root)
		return -1;
	snprintf(path, sizeof path, "%s%s/%s", root, colon, name);
	return open(path, O_RDONLY);
}

int main(int argc, char **argv)
{
	char before[64] = "", after[64] = "";
	begin(argc, argv);
	int possible = OK(open("/sys/devices/system/cpu/possible", O_RDONLY)), uptime = OK(open("/proc/uptime", O_RDONLY));
	int procs = cgroup_file("cgroup.procs");
	OK(read(possible, before, sizeof before));
	ready_and_hold();
	SAME(lseek(possible, 0, SEEK_CUR), strlen(before));
	OK(pread(possible, after, sizeof after, 0));
	CHECK(strcmp(before, after) == 0);
	CHECK(OK(pread(uptime, after, sizeof after, 0)) > 3);
	if (procs >= 0)
		CHECK(OK(pread(procs, after, sizeof after, 0)) > 1);
	pass();
}
