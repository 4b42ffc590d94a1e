/* What a parent is sent when a child ends: another signal, or none. */
#include "selfcheck.h"

static volatile sig_atomic_t usr1, chld;
static void got_usr1(int signal) { (void)signal; usr1++; }
static void got_chld(int signal) { (void)signal; chld++; }

int main(int argc, char **argv)
{
	begin(argc, argv);
	signal(SIGUSR1, got_usr1);
	signal(SIGCHLD, got_chld);
	static const int exit_signals[] = {SIGUSR1, 0, SIGCHLD};
	pid_t child[3];
	for (int i = 0; i < 3; i++) {
		child[i] = OK(syscall(SYS_clone, exit_signals[i], NULL, NULL, NULL, 0));
		if (child[i] == 0) {
			hold();
			_exit(0);
		}
	}
	ready_and_hold();
	for (int i = 0; i < 3; i++) {
		int status;
		pid_t got;
		do
			got = waitpid(child[i], &status, __WALL);
		while (got < 0 && errno == EINTR);
		SAME(got, child[i]);
		SAME(status, 0);
	}
	SAME(usr1, 1);
	SAME(chld, 1);
	pass();
}
