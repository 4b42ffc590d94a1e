/* Pipes between processes: two writers and one reader, with contents on the way; end of file when all writers go. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	int ends[2], back[2];
	char bytes[64];
	pid_t writer[2];
	volatile int *stage = shared(PAGE);
	OK(pipe(ends));
	OK(pipe(back));
	for (int i = 0; i < 2; i++) {
		writer[i] = OK(fork());
		if (writer[i] == 0) {
			close(ends[0]);
			close(back[1]);
			SAME(write(ends[1], i ? "B" : "A", 1), 1);
			__atomic_add_fetch(stage, 1, __ATOMIC_SEQ_CST);
			SAME(read(back[0], bytes, 1), 1); /* blocked while it is saved */
			SAME(write(ends[1], i ? "b" : "a", 1), 1);
			_exit(0);
		}
	}
	close(ends[1]);
	close(back[0]);
	await(stage, 2);
	ready_and_hold();
	SAME(read(ends[0], bytes, 2), 2);
	CHECK(memcmp(bytes, "AB", 2) == 0 || memcmp(bytes, "BA", 2) == 0);
	SAME(write(back[1], "xx", 2), 2);
	int total = 0;
	for (ssize_t got; (got = OK(read(ends[0], bytes, sizeof bytes))) > 0;)
		total += got;
	SAME(total, 2);
	reap(writer[0]);
	reap(writer[1]);
	signal(SIGPIPE, SIG_IGN);
	FAILS(write(back[1], "x", 1), EPIPE);
	pass();
}
