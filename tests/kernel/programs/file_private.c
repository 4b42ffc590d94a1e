/* A private mapping of a file: clean pages, changed pages, a tail beyond the file's last byte. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	enum { PAGES = 16 };
	const size_t size = PAGES * PAGE, length = size - 1000;
	char *want = private(size);
	fill(want, length, 5);
	int fd = OK(open(in_directory("data"), O_RDWR | O_CREAT, 0666));
	SAME(write(fd, want, length), length);
	char *clean = OK(mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0));
	char *dirty = OK(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
	char *inner = OK(mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 3 * PAGE));
	close(fd);
	SAME(clean[0], want[0]);
	for (int page = 0; page < PAGES; page += 3)
		dirty[page * PAGE + 17] = 'D';
	dirty[length + 5] = 'T';
	inner[PAGE] = 'I';
	ready_and_hold();
	CHECK(memcmp(clean, want, size) == 0);
	for (int page = 0; page < PAGES; page++) {
		SAME(dirty[page * PAGE + 17], page % 3 == 0 ? 'D' : want[page * PAGE + 17]);
		dirty[page * PAGE + 17] = want[page * PAGE + 17];
	}
	SAME(dirty[length + 5], 'T');
	dirty[length + 5] = 0;
	CHECK(memcmp(dirty, want, size) == 0);
	SAME(inner[PAGE], 'I');
	SAME(inner[2 * PAGE + 9], want[5 * PAGE + 9]);
	/* Still private: the file does not have what was written. */
	inner[0] = 'X';
	fd = OK(open(in_directory("data"), O_RDONLY));
	char byte;
	SAME(pread(fd, &byte, 1, 3 * PAGE), 1);
	SAME(byte, want[3 * PAGE]);
	pass();
}
