/* Memory that fork does not hand on: MADV_DONTFORK, MADV_WIPEONFORK. */
#include "selfcheck.h"

enum { SIZE = 2 << 20 };

int main(int argc, char **argv)
{
	begin(argc, argv);
	char *plain = private(SIZE), *kept = private(SIZE), *wiped = private(SIZE);
	fill(plain, SIZE, 1);
	fill(kept, SIZE, 2);
	fill(wiped, SIZE, 3);
	OK(madvise(kept, SIZE, MADV_DONTFORK));
	OK(madvise(wiped, SIZE, MADV_WIPEONFORK));
	ready_and_hold();
	filled(plain, SIZE, 1);
	filled(kept, SIZE, 2);
	filled(wiped, SIZE, 3);
	pid_t child = OK(fork());
	if (child == 0) {
		unsigned char in_core;
		filled(plain, SIZE, 1);
		zeroed(wiped, SIZE);
		FAILS(mincore(kept, PAGE, &in_core), ENOMEM);
		_exit(0);
	}
	reap(child);
	pass();
}
