/* One open file description behind several descriptors, of one process and of three; and two that are not one. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	volatile int *stage = shared(PAGE);
	int first = OK(open(in_directory("a"), O_RDWR | O_CREAT, 0644));
	SAME(write(first, "0123456789", 10), 10);
	OK(lseek(first, 2, SEEK_SET));
	int same = OK(dup(first)), other = OK(open(in_directory("a"), O_RDWR));
	OK(lseek(other, 7, SEEK_SET));
	pid_t child = OK(fork());
	if (child == 0) {
		OK(dup2(first, 77));
		OK(close(first));
		pid_t grandchild = OK(fork());
		if (grandchild == 0) {
			await(stage, 1);
			SAME(lseek(77, 0, SEEK_CUR), 4);
			OK(lseek(77, 6, SEEK_SET));
			OK(fcntl(same, F_SETFL, O_APPEND));
			_exit(0);
		}
		OK(fcntl(77, F_SETFD, FD_CLOEXEC));
		set(stage, 100);
		await(stage, 1);
		reap(grandchild);
		SAME(fcntl(77, F_GETFD), FD_CLOEXEC);
		SAME(fcntl(same, F_GETFD), 0);
		FAILS(fcntl(first, F_GETFD), EBADF);
		_exit(0);
	}
	await(stage, 100);
	ready_and_hold();
	char byte;
	SAME(read(same, &byte, 1), 1);
	SAME(byte, '2');
	OK(lseek(first, 4, SEEK_SET));
	set(stage, 1);
	reap(child);
	SAME(lseek(first, 0, SEEK_CUR), 6);
	SAME(lseek(other, 0, SEEK_CUR), 7);
	CHECK(fcntl(first, F_GETFL) & O_APPEND);
	CHECK(!(fcntl(other, F_GETFL) & O_APPEND));
	pass();
}
