/* A large file without a name: argv[2] MiB of data in pieces, with holes as long between them, in directory argv[3]. */
#include "selfcheck.h"

#define PIECES 8
#define MIB (1UL << 20)

static uint64_t word(uint64_t page) { return (page + 1) * 0x9e3779b97f4a7c15u; }

/* Every page of a piece begins and ends with words of its own; what is in between repeats. */
static void stamp(char *buffer, uint64_t offset)
{
	for (size_t at = 0; at < MIB; at += PAGE) {
		uint64_t own = word((offset + at) / PAGE);
		memcpy(buffer + at, &own, 8);
		memcpy(buffer + at + PAGE - 8, &own, 8);
	}
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	const size_t piece = atol(argv[2]) / PIECES * MIB;
	const char *directory = argc > 3 ? argv[3] : test_directory;
	static char want[MIB], got[MIB];
	memset(want, 0x5a, MIB);
	int fd = OK(open(directory, O_RDWR | O_TMPFILE, 0600));
	for (int i = 0; i < PIECES; i++)
		for (size_t at = 0; at < piece; at += MIB) {
			uint64_t offset = 2 * i * piece + at;
			stamp(want, offset);
			SAME(pwrite(fd, want, MIB, offset), MIB);
		}
	OK(ftruncate(fd, 2 * PIECES * piece));
	OK(lseek(fd, 3 * MIB + 7, SEEK_SET));
	ready_and_hold();
	struct stat status;
	OK(fstat(fd, &status));
	SAME(status.st_size, 2 * PIECES * piece);
	SAME(status.st_nlink, 0);
	CHECK((uint64_t)status.st_blocks * 512 <= PIECES * piece + PIECES * MIB); /* holes are holes */
	SAME(lseek(fd, 0, SEEK_CUR), 3 * MIB + 7);
	for (int i = 0; i < PIECES; i++) {
		for (size_t at = 0; at < piece; at += MIB) {
			uint64_t offset = 2 * i * piece + at;
			stamp(want, offset);
			SAME(pread(fd, got, MIB, offset), MIB);
			CHECK(memcmp(got, want, MIB) == 0);
		}
		SAME(lseek(fd, (2 * i + 1) * piece, SEEK_HOLE), (2 * i + 1) * piece);
	}
	pass();
}
