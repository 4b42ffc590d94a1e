/* Descriptors of processes that have ended and were waited for, and of their files in procfs. */
#include "selfcheck.h"
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>

struct pidfd_exit { /* struct pidfd_info */
	uint64_t mask, cgroup;
	uint32_t numbers[11];
	int32_t exit_code;
};
#define GET_INFO _IOWR(0xff, 11, struct pidfd_exit)

static int ended(int signal, int *file)
{
	char path[64];
	int pidfd, status;
	pid_t child = OK(fork());
	if (child == 0) {
		if (!signal)
			pause();
		raise(SIGSTOP);
		_exit(99);
	}
	snprintf(path, sizeof path, "/proc/%d/status", child);
	*file = OK(open(path, O_RDONLY));
	pidfd = OK(syscall(SYS_pidfd_open, child, 0));
	OK(kill(child, SIGKILL));
	SAME(OK(waitpid(child, &status, 0)), child);
	return pidfd;
}

static int exited(int code)
{
	int pidfd, status;
	pid_t child = OK(fork());
	if (child == 0)
		_exit(code);
	pidfd = OK(syscall(SYS_pidfd_open, child, O_NONBLOCK));
	SAME(OK(waitpid(child, &status, 0)), child);
	return pidfd;
}

static void is_dead(int pidfd, int status)
{
	struct pollfd poll_for = {.fd = pidfd, .events = POLLIN};
	struct pidfd_exit info = {.mask = 8};
	SAME(poll(&poll_for, 1, 0), 1);
	CHECK(poll_for.revents & POLLIN);
	FAILS(syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0), ESRCH);
	if (ioctl(pidfd, GET_INFO, &info) == 0 && info.mask & 8)
		SAME(info.exit_code, status);
}

int main(int argc, char **argv)
{
	int file, unused;
	char text[16];
	begin(argc, argv);
	struct stat first, again, other;
	struct statfs of;
	int pair[2];
	OK(pipe(pair));
	pid_t child = OK(fork());
	if (child == 0) {
		char byte;
		close(pair[1]);
		_exit(read(pair[0], &byte, 1) != 0);
	}
	close(pair[0]);
	int one = OK(syscall(SYS_pidfd_open, child, 0)), two = OK(syscall(SYS_pidfd_open, child, O_NONBLOCK));
	close(pair[1]);
	reap(child);
	int killed = ended(0, &file), ends_itself = exited(7), another = ended(1, &unused);
	ready_and_hold();
	is_dead(killed, SIGKILL);
	is_dead(another, SIGKILL);
	is_dead(ends_itself, 7 << 8);
	SAME(fcntl(ends_itself, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	is_dead(one, 0);
	is_dead(two, 0);
	SAME(fcntl(two, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	OK(fstatfs(one, &of));
	if (of.f_type == 0x50494446) { /* since Linux 6.9, an inode stands for a process */
		OK(fstat(one, &first));
		OK(fstat(two, &again));
		OK(fstat(killed, &other));
		SAME(first.st_ino, again.st_ino);
		CHECK(first.st_ino != other.st_ino);
	}
	FAILS(pread(file, text, sizeof text, 0), ESRCH);
	FAILS(waitpid(-1, NULL, 0), ECHILD);
	pass();
}
