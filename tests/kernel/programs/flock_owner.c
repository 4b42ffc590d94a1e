/* The kernel goes on to show who took a lock of flock(2), whoever shares the open file by now. */
#include "selfcheck.h"
#include <sys/file.h>

/* Who took the lock of flock(2) that this descriptor has: fdinfo shows "lock: 1: FLOCK ADVISORY WRITE PID ...". */
static long taker_of(int fd)
{
	char path[64], name[16], how[16], type[16];
	long pid;
	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
	char *line = proc_field(path, "lock:");
	SAME(sscanf(line, "%*d: %15s %15s %15s %ld", name, how, type, &pid), 4);
	CHECK(strcmp(name, "FLOCK") == 0);
	CHECK(strcmp(type, "WRITE") == 0);
	return pid;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct gate gate;
	gate_make(&gate);
	int mine = OK(open(in_directory("mine"), O_RDWR | O_CREAT, 0600));
	int childs = OK(open(in_directory("childs"), O_RDWR | O_CREAT, 0600));
	int orphaned = OK(open(in_directory("orphaned"), O_RDWR | O_CREAT, 0600));
	OK(flock(mine, LOCK_EX));
	pid_t short_lived = OK(fork());
	if (!short_lived) {
		OK(flock(orphaned, LOCK_EX));
		_exit(0);
	}
	reap(short_lived);
	pid_t child = OK(fork());
	if (!child) {
		OK(flock(childs, LOCK_EX));
		gate_child_is_set(&gate);
		hold();
		SAME(taker_of(childs), getpid());
		SAME(taker_of(mine), getppid());
		_exit(0);
	}
	gate_wait(&gate, 1);
	int left = OK(open(in_directory("left"), O_RDWR | O_CREAT, 0600));
	OK(flock(left, LOCK_EX));
	pid_t heir = OK(fork());
	if (!heir) {
		hold();
		SAME(taker_of(left), getppid());
		_exit(0);
	}
	close(left);
	ready_and_hold();
	SAME(taker_of(mine), getpid());
	SAME(taker_of(childs), child);
	FAILS(flock(OK(open(in_directory("orphaned"), O_RDWR)), LOCK_SH | LOCK_NB), EWOULDBLOCK);
	reap(child);
	reap(heir);
	pass();
}
