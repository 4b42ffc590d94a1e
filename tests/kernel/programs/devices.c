/* The devices that keep nothing: null, zero, full, random, urandom; opened and mapped. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	char bytes[64], before[64];
	int null = OK(open("/dev/null", O_RDWR)), zero = OK(open("/dev/zero", O_RDWR | O_CLOEXEC)), full = OK(open("/dev/full", O_WRONLY));
	int random = OK(open("/dev/random", O_RDONLY)), urandom = OK(open("/dev/urandom", O_RDONLY | O_NONBLOCK));
	char *map = OK(mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, zero, 0));
	char *common = OK(mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, zero, 0));
	fill(map, 4 * PAGE, 1);
	fill(common, 4 * PAGE, 2);
	SAME(read(urandom, before, sizeof before), sizeof before);
	pid_t child = OK(fork());
	if (child == 0) {
		hold();
		filled(common, 4 * PAGE, 2);
		_exit(0);
	}
	ready_and_hold();
	SAME(write(null, "gone", 4), 4);
	SAME(read(null, bytes, sizeof bytes), 0);
	SAME(read(zero, bytes, sizeof bytes), sizeof bytes);
	zeroed(bytes, sizeof bytes);
	FAILS(write(full, "x", 1), ENOSPC);
	SAME(read(random, bytes, 16), 16);
	SAME(read(urandom, bytes, sizeof bytes), sizeof bytes);
	CHECK(memcmp(before, bytes, sizeof bytes) != 0);
	SAME(fcntl(urandom, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	SAME(fcntl(zero, F_GETFD), FD_CLOEXEC);
	filled(map, 4 * PAGE, 1);
	zeroed(map + 4 * PAGE, 4 * PAGE);
	filled(common, 4 * PAGE, 2);
	reap(child);
	pass();
}
