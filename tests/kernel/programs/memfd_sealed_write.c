/* A memfd that is sealed against writing, read through a private mapping and its descriptor. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	char *want = private(3 * PAGE);
	fill(want, 3 * PAGE, 8);
	int fd = OK(memfd_create("sealed", MFD_ALLOW_SEALING));
	SAME(write(fd, want, 3 * PAGE), 3 * PAGE);
	int all = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
	OK(fcntl(fd, F_ADD_SEALS, all));
	char *map = OK(mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
	map[PAGE] = 'm';
	ready_and_hold();
	SAME(fcntl(fd, F_GET_SEALS), all);
	FAILS(write(fd, "x", 1), EPERM);
	SAME(map[PAGE], 'm');
	map[PAGE] = want[PAGE];
	CHECK(memcmp(map, want, 3 * PAGE) == 0);
	char *got = private(3 * PAGE);
	SAME(pread(fd, got, 3 * PAGE, 0), 3 * PAGE);
	CHECK(memcmp(got, want, 3 * PAGE) == 0);
	pass();
}
