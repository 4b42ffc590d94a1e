/* A shared mapping of a file: writes reach the file and a second process. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	const size_t size = 8 * PAGE;
	int fd = OK(open(in_directory("data"), O_RDWR | O_CREAT, 0666));
	OK(ftruncate(fd, size));
	char *map = OK(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	char *view = OK(mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0));
	close(fd);
	fill(map, size, 1);
	volatile int *stage = shared(PAGE);
	pid_t child = OK(fork());
	if (child == 0) {
		set(stage, 1);
		await(stage, 2);
		filled(map, size, 2);
		map[100] = 'c';
		set(stage, 3);
		_exit(0);
	}
	await(stage, 1);
	ready_and_hold();
	filled(map, size, 1);
	filled(view, size, 1);
	fill(map, size, 2);
	filled(view, size, 2);
	set(stage, 2);
	await(stage, 3);
	SAME(map[100], 'c');
	SAME(view[100], 'c');
	char byte;
	fd = OK(open(in_directory("data"), O_RDONLY));
	SAME(pread(fd, &byte, 1, 100), 1);
	SAME(byte, 'c');
	reap(child);
	pass();
}
