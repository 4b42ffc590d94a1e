/* poll, ppoll, select, pselect, epoll_wait, epoll_pwait: with a time-out, without, and with a mask. */
#include "blocked.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>

static int ends[2];
static const char *call;
static bool timeout;

static void body(void)
{
	struct pollfd poller = {.fd = ends[0], .events = POLLIN};
	struct timespec span = {1, 500000000};
	struct timeval value = {1, 500000};
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0x123456789abcull}, got = {0};
	sigset_t mask;
	fd_set set_of;
	int result = -2;
	double start = seconds(CLOCK_MONOTONIC);
	sigfillset(&mask);
	FD_ZERO(&set_of);
	FD_SET(ends[0], &set_of);
	if (strcmp(call, "poll") == 0)
		result = OK(poll(&poller, 1, timeout ? 1500 : -1));
	else if (strcmp(call, "ppoll") == 0)
		result = OK(ppoll(&poller, 1, timeout ? &span : NULL, &mask));
	else if (strcmp(call, "select") == 0)
		result = OK(select(ends[0] + 1, &set_of, NULL, NULL, timeout ? &value : NULL));
	else if (strcmp(call, "pselect") == 0)
		result = OK(pselect(ends[0] + 1, &set_of, NULL, NULL, timeout ? &span : NULL, &mask));
	else {
		int epoll = OK(epoll_create1(0));
		OK(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event));
		if (strcmp(call, "epoll_wait") == 0)
			result = OK(epoll_wait(epoll, &got, 1, timeout ? 1500 : -1));
		else
			result = OK(epoll_pwait(epoll, &got, 1, timeout ? 1500 : -1, &mask));
		if (!timeout)
			SAME(got.data.u64, event.data.u64);
	}
	sigset_t now;
	pthread_sigmask(SIG_SETMASK, NULL, &now);
	SAME(sigismember(&now, SIGUSR1), 0); /* the mask of the call is gone */
	double waited = seconds(CLOCK_MONOTONIC) - start;
	SAME(result, !timeout);
	if (timeout && (waited < 1.49 || waited > 6))
		FAIL("%s timed out after %f s of 1.5", call, waited);
}

static void wake(void) { SAME(write(ends[1], "x", 1), 1); }

int main(int argc, char **argv)
{
	begin(argc, argv);
	call = argc > 2 ? argv[2] : "poll";
	timeout = argc > 3;
	OK(pipe2(ends, O_CLOEXEC));
	static const struct {
		const char *name;
		long call, other;
	} calls[] = {{"poll", SYS_poll, SYS_restart_syscall}, {"ppoll", SYS_ppoll, -2}, {"select", SYS_select, SYS_pselect6},
		     {"pselect", SYS_pselect6, -2}, {"epoll_wait", SYS_epoll_wait, -2}, {"epoll_pwait", SYS_epoll_pwait, -2}};
	for (int i = 0; i < 6; i++)
		if (strcmp(call, calls[i].name) == 0)
			hold_while_blocked(body, calls[i].call, calls[i].other, timeout ? NULL : wake);
	FAIL("no call %s", call);
}
