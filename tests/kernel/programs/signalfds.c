/* signalfd: its mask, and signals pending for it. */
#include "selfcheck.h"
#include <sys/signalfd.h>

int main(int argc, char **argv)
{
	begin(argc, argv);
	sigset_t mask, other;
	struct signalfd_siginfo info;
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	sigaddset(&mask, SIGRTMIN + 3);
	sigemptyset(&other);
	sigaddset(&other, SIGUSR2);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	sigprocmask(SIG_BLOCK, &other, NULL);
	int fd = OK(signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC)), second = OK(signalfd(-1, &other, SFD_NONBLOCK));
	OK(sigqueue(getpid(), SIGRTMIN + 3, (union sigval){.sival_int = 31}));
	OK(sigqueue(getpid(), SIGRTMIN + 3, (union sigval){.sival_int = 32}));
	ready_and_hold();
	for (int i = 31; i <= 32; i++) {
		SAME(read(fd, &info, sizeof info), sizeof info);
		SAME(info.ssi_signo, SIGRTMIN + 3);
		SAME(info.ssi_int, i);
	}
	FAILS(read(fd, &info, sizeof info), EAGAIN);
	raise(SIGUSR1);
	raise(SIGUSR2);
	SAME(read(fd, &info, sizeof info), sizeof info);
	SAME(info.ssi_signo, SIGUSR1);
	FAILS(read(fd, &info, sizeof info), EAGAIN);
	SAME(read(second, &info, sizeof info), sizeof info);
	SAME(info.ssi_signo, SIGUSR2);
	SAME(fcntl(fd, F_GETFD), FD_CLOEXEC);
	pass();
}
