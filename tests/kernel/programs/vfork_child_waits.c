/* A parent waits for its vfork child, which calls exec only when the file "go" is there. */
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc < 2 || chdir(argv[1]) < 0)
		return 2;
	if (write(1, "ready\n", 6) != 6)
		return 2;
	pid_t child = vfork();
	if (child == 0) {
		while (access("go", F_OK) < 0)
			usleep(1000);
		execl("/bin/sleep", "sleep", "1000", (char *)0);
		_exit(127);
	}
	int status;
	wait(&status);
	return 0;
}
