/* Droppable memory stays that; its contents may be gone, whole pages at a time. */
#include "selfcheck.h"
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

static char *memory;

static int is_droppable(void)
{
	unsigned long start, end;
	char line[4096];
	int here = 0, found = 0;
	FILE *file = fopen("/proc/self/smaps", "re");
	CHECK(file);
	while (fgets(line, sizeof line, file)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = start <= (unsigned long)memory && (unsigned long)memory < end;
		if (here && strncmp(line, "VmFlags:", 8) == 0)
			found = strstr(line, " dp") != NULL;
	}
	fclose(file);
	return found;
}

static void check(void)
{
	static const char nothing[PAGE];
	for (char *page = memory; page < memory + 4 * PAGE; page += PAGE)
		if (memcmp(page, nothing, PAGE) != 0)
			filled(page, PAGE, page - memory);
	CHECK(is_droppable());
	for (char *page = memory; page < memory + 4 * PAGE; page += PAGE)
		fill(page, PAGE, page - memory);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct gate gate;
	gate_make(&gate);
	memory = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED && errno == EINVAL) { /* before Linux 6.11 */
		ready_and_hold();
		pass();
	}
	CHECK(memory != MAP_FAILED);
	check();
	pid_t child = OK(fork());
	if (!child) {
		zeroed(memory, 4 * PAGE);
		gate_child_is_set(&gate);
		hold();
		check();
		_exit(0);
	}
	gate_wait(&gate, 1);
	ready_and_hold();
	check();
	reap(child);
	pid_t later = OK(fork());
	if (!later) {
		zeroed(memory, 4 * PAGE);
		_exit(0);
	}
	reap(later);
	pass();
}
