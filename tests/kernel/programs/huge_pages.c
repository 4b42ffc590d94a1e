/* Memory from the machine's pool of huge pages: private, shared, with a descriptor, of System V; holes stay holes. */
#include "selfcheck.h"
#include <sys/shm.h>

#define HUGE (2UL << 20)
#define RW (PROT_READ | PROT_WRITE)

static long huge_kib(void *at)
{
	unsigned long start, end;
	char line[4096];
	long size = -1, here = 0;
	FILE *file = fopen("/proc/self/smaps", "re");
	CHECK(file);
	while (fgets(line, sizeof line, file)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = start <= (unsigned long)at && (unsigned long)at < end;
		if (here)
			sscanf(line, "KernelPageSize: %ld kB", &size);
	}
	fclose(file);
	return size;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct gate gate;
	gate_make(&gate);
	char *mine = OK(mmap(NULL, 3 * HUGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_NORESERVE, -1, 0));
	char *ours = OK(mmap(NULL, 3 * HUGE, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB | MAP_NORESERVE, -1, 0));
	int fd = OK(memfd_create("huge", MFD_HUGETLB | MFD_ALLOW_SEALING));
	OK(ftruncate(fd, HUGE));
	OK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW));
	char *of_fd = OK(mmap(NULL, HUGE, RW, MAP_SHARED, fd, 0));
	char *copied = OK(mmap(NULL, HUGE, RW, MAP_PRIVATE, fd, 0));
	int segment = OK(shmget(IPC_PRIVATE, HUGE - 12345, IPC_CREAT | SHM_HUGETLB | 0600));
	char *attached = OK(shmat(segment, NULL, 0));
	OK(shmctl(segment, IPC_RMID, NULL));
	fill(mine, PAGE, 1);
	fill(mine + 2 * HUGE, HUGE, 2);
	fill(ours + HUGE + 5 * PAGE, PAGE, 3);
	fill(of_fd, HUGE, 4);
	fill(attached, PAGE, 5);
	OK(mprotect(mine + 2 * HUGE, HUGE, PROT_READ));
	pid_t child = OK(fork());
	if (!child) {
		fill(mine, PAGE, 11);
		fill(copied, PAGE, 12);
		gate_child_is_set(&gate);
		hold();
		filled(mine, PAGE, 11);
		filled(mine + 2 * HUGE, HUGE, 2);
		filled(copied, PAGE, 12);
		filled(ours + HUGE + 5 * PAGE, PAGE, 3);
		fill(ours + HUGE + 5 * PAGE, PAGE, 13);
		_exit(0);
	}
	gate_wait(&gate, 1);
	ready_and_hold();
	reap(child);
	SAME(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW);
	FAILS(ftruncate(fd, 2 * HUGE), EPERM);
	filled(mine, PAGE, 1);
	zeroed(mine + PAGE, HUGE - PAGE);
	filled(mine + 2 * HUGE, HUGE, 2);
	filled(ours + HUGE + 5 * PAGE, PAGE, 13);
	zeroed(ours, HUGE);
	filled(of_fd, HUGE, 4);
	filled(copied, HUGE, 4);
	fill(of_fd, HUGE, 14);
	char page[PAGE];
	SAME(pread(fd, page, PAGE, 0), PAGE);
	filled(page, PAGE, 14);
	filled(attached, PAGE, 5);
	char *all[] = {mine, mine + 2 * HUGE, ours, of_fd, copied, attached};
	for (unsigned i = 0; i < sizeof all / sizeof *all; i++)
		SAME(huge_kib(all[i]), 2048);
	OK(shmdt(attached));
	pass();
}
