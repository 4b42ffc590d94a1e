/* Mappings of a file that has no name any more, shared and private, without a descriptor. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	const size_t size = 8 * PAGE;
	int fd = OK(open(in_directory("data"), O_RDWR | O_CREAT, 0666));
	OK(ftruncate(fd, size));
	char *map = OK(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	char *own = OK(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
	fill(map, size, 1);
	*(volatile char *)own = *map; /* its own copy of the first page */
	OK(unlink(in_directory("data")));
	close(fd);
	volatile int *stage = shared(PAGE);
	pid_t child = OK(fork());
	if (child == 0) {
		await(stage, 1);
		SAME(map[2 * PAGE], 'p');
		map[2 * PAGE] = 'c';
		_exit(0);
	}
	ready_and_hold();
	filled(map, size, 1);
	filled(own, size, 1);
	map[2 * PAGE] = 'p';
	set(stage, 1);
	reap(child);
	SAME(map[2 * PAGE], 'c');
	SAME(own[2 * PAGE], 'c'); /* untouched private pages show the file */
	map[0] = '!';
	CHECK(own[0] != '!');
	pass();
}
