/* POSIX shared memory: one object with a name and one whose name is gone. */
#include "selfcheck.h"
#include <libgen.h>

int main(int argc, char **argv)
{
	begin(argc, argv);
	const size_t size = 8 * PAGE;
	char name[128];
	/* Named after the test's directory: the test removes what bears that name. */
	snprintf(name, sizeof name, "/%s", basename(dirname(strdup(test_directory))));
	int named = OK(shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600));
	OK(ftruncate(named, size));
	char *map = OK(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, named, 0));
	char scratch[160];
	snprintf(scratch, sizeof scratch, "%s-gone", name);
	int gone = OK(shm_open(scratch, O_RDWR | O_CREAT | O_EXCL, 0600));
	OK(ftruncate(gone, size));
	char *lost = OK(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, gone, 0));
	OK(shm_unlink(scratch));
	fill(map, size, 1);
	fill(lost, size, 2);
	close(gone);
	volatile int *stage = shared(PAGE);
	pid_t child = OK(fork());
	if (child == 0) {
		await(stage, 1);
		map[0] = lost[0] = 'c';
		_exit(0);
	}
	ready_and_hold();
	filled(map, size, 1);
	filled(lost, size, 2);
	set(stage, 1);
	reap(child);
	SAME(map[0], 'c');
	SAME(lost[0], 'c');
	char byte;
	SAME(pread(named, &byte, 1, 0), 1);
	SAME(byte, 'c');
	struct stat a, b;
	OK(fstat(OK(shm_open(name, O_RDWR, 0)), &a));
	OK(fstat(named, &b));
	SAME(a.st_ino, b.st_ino);
	pass();
}
