/* Memory to write and run at once, with holes as large as a checkpoint may want; all of it is as it was afterwards. */
#include "selfcheck.h"

enum { CHUNKS = 64, SIZE = 64 << 10 };
static char before[1 << 18], after[1 << 18];

static void look(char *into, size_t size)
{
	int fd = OK(open("/proc/self/maps", O_RDONLY | O_CLOEXEC));
	size_t length = 0;
	for (ssize_t got; (got = OK(read(fd, into + length, size - 1 - length))) > 0;)
		length += got;
	into[length] = 0;
	close(fd);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	char *all = OK(mmap(NULL, 2 * CHUNKS * SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	for (int i = 0; i < CHUNKS; i++) {
		fill(all + 2 * i * SIZE, SIZE, i);
		OK(munmap(all + (2 * i + 1) * SIZE, SIZE));
	}
	look(before, sizeof before);
	ready_and_hold();
	look(after, sizeof after);
	if (strcmp(before, after) != 0)
		FAIL("the mappings are not what they were:\n%s\n%s", before, after);
	for (int i = 0; i < CHUNKS; i++)
		filled(all + 2 * i * SIZE, SIZE, i);
	pass();
}
