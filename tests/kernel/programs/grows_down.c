/* A mapping of one's own that grows down. */
#include "selfcheck.h"

/* More than it grows by, and than the kernel keeps free below it. */
#define ROOM (4 << 20)

int main(int argc, char **argv)
{
	begin(argc, argv);
	char *area = OK(mmap(NULL, ROOM, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
	OK(munmap(area, ROOM));
	char *at = area + (ROOM) - 4 * PAGE;
	char *map = OK(mmap(at, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0));
	fill(map, 4 * PAGE, 1);
	ready_and_hold();
	filled(map, 4 * PAGE, 1);
	for (int page = 1; page < 100; page++)
		map[-page * (long)PAGE] = page;
	for (int page = 1; page < 100; page++)
		SAME(map[-page * (long)PAGE], page);
	pass();
}
