/* A System V segment attached by two processes, and one that is already marked for removal. */
#include "selfcheck.h"
#include <sys/ipc.h>
#include <sys/shm.h>

int main(int argc, char **argv)
{
	begin(argc, argv);
	const size_t size = 4 * PAGE;
	int id = OK(shmget(IPC_PRIVATE, size, IPC_CREAT | 0640));
	int removed = OK(shmget(IPC_PRIVATE, size, IPC_CREAT | 0600));
	char *map = OK(shmat(id, NULL, 0)), *readonly = OK(shmat(id, NULL, SHM_RDONLY));
	char *lost = OK(shmat(removed, NULL, 0));
	OK(shmctl(removed, IPC_RMID, NULL));
	fill(map, size, 1);
	fill(lost, size, 2);
	volatile int *stage = shared(PAGE);
	pid_t child = OK(fork());
	if (child == 0) {
		set(stage, 1);
		await(stage, 2);
		SAME(map[0], 'p');
		map[1] = lost[1] = 'c';
		_exit(0);
	}
	await(stage, 1);
	ready_and_hold();
	struct shmid_ds segment;
	OK(shmctl(id, IPC_STAT, &segment));
	SAME(segment.shm_nattch, 4);
	SAME(segment.shm_segsz, size);
	SAME(segment.shm_perm.mode & 0777, 0640);
	OK(shmctl(id, IPC_RMID, NULL));
	filled(map, size, 1);
	filled(readonly, size, 1);
	filled(lost, size, 2);
	map[0] = 'p';
	set(stage, 2);
	reap(child);
	SAME(readonly[1], 'c');
	SAME(lost[1], 'c');
	OK(shmdt(map));
	OK(shmdt(readonly));
	OK(shmdt(lost));
	FAILS(shmctl(id, IPC_STAT, &segment), EINVAL);
	pass();
}
