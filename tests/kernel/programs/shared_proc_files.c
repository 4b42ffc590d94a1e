/* Files of procfs about a process, opened by one and shared with its children: one position for all. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	char text[64];
	struct gate gate;
	begin(argc, argv);
	gate_make(&gate);
	int status = OK(open("/proc/self/status", O_RDONLY)), comm = OK(open("/proc/self/comm", O_RDWR));
	SAME(read(status, text, 5), 5);
	pid_t parent = getpid(), child = OK(fork());
	if (child == 0) {
		int own = OK(open("/proc/self/stat", O_RDONLY)), kept = OK(dup2(status, 50));
		close(status);
		pid_t grandchild = OK(fork());
		if (grandchild == 0) {
			gate_child_is_set(&gate);
			hold();
			SAME(pread(own, text, sizeof text, 0) > 3, 1);
			SAME(atoi(text), getppid());
			_exit(0);
		}
		gate_child_is_set(&gate);
		hold();
		reap(grandchild);
		SAME(lseek(kept, 0, SEEK_CUR), 5);
		SAME(lseek(kept, 11, SEEK_SET), 11);
		SAME(write(comm, "renamed", 7), -1); /* its own and no other name may be written */
		_exit(0);
	}
	gate_wait(&gate, 2);
	ready_and_hold();
	reap(child);
	SAME(lseek(status, 0, SEEK_CUR), 11);
	SAME(getpid(), parent);
	OK(pread(status, text, 20, 0));
	CHECK(memcmp(text, "Name:\tshared_proc_fi", 20) == 0);
	SAME(write(comm, "renamed", 7), 7);
	pass();
}
