/* Threads with a descriptor table, or a working directory and umask, of their own. */
#include "selfcheck.h"
#include <pthread.h>

static pthread_barrier_t set_up, go_on;
static int shared_file, only_process;

static void *own_files(void *unused)
{
	int ends[2];
	char text[4] = "";
	OK(unshare(CLONE_FILES));
	OK(close(only_process));
	OK(pipe(ends));
	SAME(ends[0], only_process);
	SAME(write(ends[1], "own", 3), 3);
	OK(dup2(shared_file, 70));
	pthread_barrier_wait(&set_up);
	pthread_barrier_wait(&go_on);
	SAME(read(ends[0], text, 3), 3);
	CHECK(memcmp(text, "own", 3) == 0);
	SAME(lseek(70, 0, SEEK_CUR), 5);
	SAME(lseek(70, 9, SEEK_SET), 9);
	SAME(lseek(shared_file, 0, SEEK_CUR), 9);
	pthread_barrier_wait(&go_on);
	return unused;
}

static void *own_directory(void *unused)
{
	char path[PATH_MAX];
	OK(unshare(CLONE_FS));
	OK(chdir("/usr/bin"));
	umask(0137);
	pthread_barrier_wait(&set_up);
	pthread_barrier_wait(&go_on);
	CHECK(getcwd(path, sizeof path) && strcmp(path, "/usr/bin") == 0);
	SAME(umask(0), 0137);
	pthread_barrier_wait(&go_on);
	return unused;
}

static void *own_both(void *unused)
{
	char path[PATH_MAX];
	OK(unshare(CLONE_FS | CLONE_FILES));
	OK(chdir("/"));
	OK(close(shared_file));
	pthread_barrier_wait(&set_up);
	pthread_barrier_wait(&go_on);
	CHECK(getcwd(path, sizeof path) && strcmp(path, "/") == 0);
	SAME(umask(0), 022);
	FAILS(fcntl(shared_file, F_GETFD), EBADF);
	FAILS(fcntl(70, F_GETFD), EBADF);
	OK(fcntl(only_process, F_GETFD));
	pthread_barrier_wait(&go_on);
	return unused;
}

int main(int argc, char **argv)
{
	void *(*const work[])(void *) = {own_files, own_directory, own_both};
	enum { THREADS = 3 };
	pthread_t threads[THREADS];
	char path[PATH_MAX];
	struct stat status;
	begin(argc, argv);
	OK(chdir("/usr"));
	umask(022);
	shared_file = OK(open(in_directory("shared"), O_RDWR | O_CREAT, 0644));
	only_process = OK(open("/dev/null", O_RDONLY));
	SAME(lseek(shared_file, 5, SEEK_SET), 5);
	pthread_barrier_init(&set_up, NULL, THREADS + 1);
	pthread_barrier_init(&go_on, NULL, THREADS + 1);
	for (int i = 0; i < THREADS; i++)
		SAME(pthread_create(&threads[i], NULL, work[i], NULL), 0);
	pthread_barrier_wait(&set_up);
	ready_and_hold();
	pthread_barrier_wait(&go_on);
	pthread_barrier_wait(&go_on);
	CHECK(getcwd(path, sizeof path) && strcmp(path, "/usr") == 0);
	SAME(umask(022), 022);
	OK(fstat(only_process, &status));
	CHECK(S_ISCHR(status.st_mode));
	SAME(lseek(shared_file, 0, SEEK_CUR), 9);
	FAILS(fcntl(70, F_GETFD), EBADF);
	for (int i = 0; i < THREADS; i++)
		SAME(pthread_join(threads[i], NULL), 0);
	pass();
}
