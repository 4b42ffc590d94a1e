/* What /proc/self says of the program: exe, argv, environment, auxv, name, and the layout they come from. */
#include "selfcheck.h"

static char files[][32] = {"/proc/self/cmdline", "/proc/self/environ", "/proc/self/auxv", "/proc/self/comm"};
static char contents[4][65536];
static ssize_t lengths[4];

static ssize_t slurp(const char *path, char *into, size_t size)
{
	ssize_t total = 0, got;
	int fd = OK(open(path, O_RDONLY | O_CLOEXEC));
	while ((got = OK(read(fd, into + total, size - total))) > 0)
		total += got;
	close(fd);
	return total;
}

static void layout(unsigned long *into)
{
	char line[2048] = "", *at;
	slurp("/proc/self/stat", line, sizeof line - 1);
	at = strrchr(line, ')') + 2;
	/* fields 26-28 (code, stack), 45-51 (data, brk, arguments, environment) of proc_pid_stat(5) */
	for (int field = 3, kept = 0; *at; field++) {
		unsigned long value = strtoul(at, NULL, 10);
		if ((field >= 26 && field <= 28) || (field >= 45 && field <= 51))
			into[kept++] = value;
		at += strcspn(at, " ");
		at += strspn(at, " ");
	}
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	char exe[PATH_MAX] = "", exe_now[PATH_MAX] = "", *now = malloc(65536);
	unsigned long before[10], after[10];
	OK(prctl(PR_SET_NAME, "named (odd) \\x"));
	argv[0][0] = 'Z'; /* programs do write over their arguments */
	OK(readlink("/proc/self/exe", exe, sizeof exe - 1));
	for (int i = 0; i < 4; i++)
		lengths[i] = slurp(files[i], contents[i], sizeof contents[i]);
	layout(before);
	ready_and_hold();
	OK(readlink("/proc/self/exe", exe_now, sizeof exe_now - 1));
	if (strcmp(exe, exe_now) != 0)
		FAIL("exe is %s, not %s", exe_now, exe);
	for (int i = 0; i < 4; i++) {
		SAME(slurp(files[i], now, 65536), lengths[i]);
		if (memcmp(now, contents[i], lengths[i]) != 0)
			FAIL("%s differs", files[i]);
	}
	layout(after);
	for (int i = 0; i < 10; i++)
		if (before[i] != after[i])
			FAIL("layout field %d is %#lx, not %#lx", i, after[i], before[i]);
	pass();
}
