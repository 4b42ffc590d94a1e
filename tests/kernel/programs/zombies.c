/* Children that have ended and are not waited for: exit codes, signals, in any order. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	static const int codes[] = {0, 7, 255}, signals[] = {SIGKILL, SIGTERM, SIGUSR1};
	pid_t exited[3], killed[3], last;
	siginfo_t info;
	for (int i = 0; i < 3; i++) {
		exited[i] = OK(fork());
		if (exited[i] == 0)
			_exit(codes[i]);
		killed[i] = OK(fork());
		if (killed[i] == 0) {
			raise(signals[i]);
			pause();
		}
	}
	for (int i = 0; i < 3; i++) {
		OK(waitid(P_PID, exited[i], &info, WEXITED | WNOWAIT));
		OK(waitid(P_PID, killed[i], &info, WEXITED | WNOWAIT));
	}
	ready_and_hold();
	for (int i = 2; i >= 0; i--) {
		memset(&info, 0, sizeof info);
		OK(waitid(P_PID, exited[i], &info, WEXITED | WNOHANG));
		SAME(info.si_pid, exited[i]);
		SAME(info.si_code, CLD_EXITED);
		SAME(info.si_status, codes[i]);
		memset(&info, 0, sizeof info);
		OK(waitid(P_PID, killed[i], &info, WEXITED | WNOHANG));
		SAME(info.si_pid, killed[i]);
		SAME(info.si_code, CLD_KILLED);
		SAME(info.si_status, signals[i]);
	}
	FAILS(waitpid(-1, NULL, 0), ECHILD);
	last = OK(fork());
	if (last == 0)
		_exit(0);
	reap(last);
	pass();
}
