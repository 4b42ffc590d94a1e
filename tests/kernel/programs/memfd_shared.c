/* A memfd shared by two processes: mapped by both, contents, size, seals, position, name. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	const size_t size = 16 * PAGE;
	volatile int *stage = shared(PAGE);
	int fd = OK(memfd_create("a name", MFD_CLOEXEC | MFD_ALLOW_SEALING));
	OK(ftruncate(fd, size + 100));
	char *map = OK(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	fill(map, size, 1);
	OK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW));
	OK(lseek(fd, 12345, SEEK_SET));
	pid_t child = OK(fork());
	if (child == 0) {
		await(stage, 1);
		filled(map, size, 2);
		map[7] = 'c';
		OK(lseek(fd, 777, SEEK_SET));
		_exit(0);
	}
	ready_and_hold();
	filled(map, size, 1);
	SAME(lseek(fd, 0, SEEK_CUR), 12345);
	struct stat status;
	OK(fstat(fd, &status));
	SAME(status.st_size, size + 100);
	SAME(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW);
	SAME(fcntl(fd, F_GETFD), FD_CLOEXEC);
	FAILS(ftruncate(fd, 10), EPERM);
	char link[64], path[64];
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	link[OK(readlink(path, link, sizeof link - 1))] = 0;
	if (strcmp(link, "/memfd:a name (deleted)") != 0)
		FAIL("the memfd is %s", link);
	fill(map, size, 2);
	set(stage, 1);
	reap(child);
	char byte;
	SAME(pread(fd, &byte, 1, 7), 1);
	SAME(byte, 'c');
	SAME(lseek(fd, 0, SEEK_CUR), 777);
	pass();
}
