/* Children of a process that has never touched its memory: fork, fork of fork, vfork, many at once, exec. */
#include "selfcheck.h"

#define PIECE (1UL << 20)
#define MANY 32

static char *at;
static char *arguments[3];

static void child_of_child(void)
{
	pid_t child = OK(fork());
	if (child == 0) {
		pid_t inner = OK(fork());
		if (inner == 0) {
			filled(at, PIECE, 1);
			_exit(0);
		}
		OK(madvise(at, PIECE, MADV_DONTNEED));
		zeroed(at, PIECE);
		reap(inner);
		filled(at + PIECE, PIECE, 2);
		memset(at + PIECE, 9, PIECE);
		_exit(0);
	}
	reap(child);
	filled(at + PIECE, PIECE, 2);
	filled(at, PIECE, 1);
}

static void at_the_same_time(void)
{
	pid_t children[MANY];
	for (int i = 0; i < MANY; i++) {
		children[i] = OK(fork());
		if (children[i] == 0) {
			char *own = at + 2 * PIECE + i * (PIECE / MANY);
			OK(munmap(at, PIECE));
			char *to = OK(mremap(own, PIECE / MANY, PIECE / MANY, MREMAP_MAYMOVE | MREMAP_FIXED, at));
			char *same = malloc(PIECE);
			fill(same, PIECE, 3);
			SAME(memcmp(to, same + i * (PIECE / MANY), PIECE / MANY), 0);
			_exit(0);
		}
	}
	for (int i = 0; i < MANY; i++)
		reap(children[i]);
	filled(at + 2 * PIECE, PIECE, 3);
}

static void vforked(void)
{
	pid_t child = vfork();
	if (child == 0) {
		filled(at + 3 * PIECE, PIECE, 4);
		*(volatile char *)(at + 4 * PIECE) = 42;
		_exit(0);
	}
	reap(OK(child));
	SAME(at[4 * PIECE], 42);
}

static void executed(void)
{
	pid_t child = OK(fork());
	if (child == 0) {
		execv("/bin/sh", (char *[]){"sh", "-c", arguments[0], arguments[1], NULL});
		_exit(9);
	}
	reap(child);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	at = private(6 * PIECE);
	for (int i = 0; i < 5; i++)
		fill(at + i * PIECE, PIECE, i + 1);
	/* the words of a command, each on a page of its own */
	arguments[0] = strcpy(at + 5 * PIECE, "test \"$0\" = word");
	arguments[1] = strcpy(at + 5 * PIECE + 64 * PAGE, "word");
	ready_and_hold();
	child_of_child();
	at_the_same_time();
	vforked();
	executed();
	/* a child that is never waited for, and ends without having touched anything */
	pid_t last = OK(fork());
	if (last == 0)
		_exit(0);
	reap(last);
	filled(at, PIECE, 1);
	pass();
}
