/* Signals pending for the process as a whole, from itself, a child and a dead child. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	sigset_t all;
	struct timespec none = {0};
	siginfo_t info;
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	OK(kill(getpid(), SIGTERM));
	for (int i = 0; i < 20; i++)
		OK(sigqueue(getpid(), SIGRTMIN + 1 + i % 2, (union sigval){.sival_int = 1000 + i}));
	pid_t parent = getpid(), child = OK(fork());
	if (child == 0) {
		OK(sigqueue(parent, SIGRTMAX, (union sigval){.sival_ptr = &info}));
		_exit(17);
	}
	OK(waitid(P_PID, child, &info, WEXITED | WNOWAIT));
	ready_and_hold();
	memset(&info, 0, sizeof info);
	SAME(sigtimedwait(&all, &info, &none), SIGTERM);
	SAME(info.si_code, SI_USER);
	SAME(info.si_pid, getpid());
	SAME(sigtimedwait(&all, &info, &none), SIGCHLD);
	SAME(info.si_code, CLD_EXITED);
	SAME(info.si_pid, child);
	SAME(info.si_status, 17);
	for (int queue = 0; queue < 2; queue++)
		for (int i = queue; i < 20; i += 2) {
			SAME(sigtimedwait(&all, &info, &none), SIGRTMIN + 1 + queue);
			SAME(info.si_code, SI_QUEUE);
			SAME(info.si_value.sival_int, 1000 + i);
		}
	SAME(sigtimedwait(&all, &info, &none), SIGRTMAX);
	SAME(info.si_pid, child);
	CHECK(info.si_value.sival_ptr == &info);
	FAILS(sigtimedwait(&all, &info, &none), EAGAIN);
	int status;
	SAME(waitpid(child, &status, 0), child);
	SAME(WEXITSTATUS(status), 17);
	pass();
}
