/* Children whose stops the parent knows of, with one thread and with two: it does not hear of them again. */
#include "selfcheck.h"
#include <pthread.h>

static volatile sig_atomic_t heard;
static void on_child(int signal)
{
	(void)signal;
	heard++;
}

static void *idle(void *argument)
{
	for (;;)
		pause();
	return argument;
}

static pid_t stopped_child(bool threaded)
{
	pid_t child = OK(fork());
	if (child == 0) {
		pthread_t thread;
		if (threaded)
			SAME(pthread_create(&thread, NULL, idle, NULL), 0);
		raise(SIGSTOP);
		_exit(21);
	}
	return child;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	int status;
	siginfo_t info;
	struct sigaction action = {.sa_handler = on_child, .sa_flags = SA_RESTART};
	OK(sigaction(SIGCHLD, &action, NULL));
	pid_t children[] = {stopped_child(false), stopped_child(true), stopped_child(false)};
	for (int i = 0; i < 2; i++) {
		pid_t got;
		do
			got = waitpid(children[i], &status, WUNTRACED);
		while (got < 0 && errno == EINTR);
		SAME(got, children[i]);
	}
	while (waitid(P_PID, children[2], &info, WSTOPPED | WNOWAIT) < 0)
		SAME(errno, EINTR);
	sigset_t pending;
	int before = heard;
	ready_and_hold();
	OK(sigpending(&pending));
	SAME(sigismember(&pending, SIGCHLD), 0);
	SAME(heard, before);
	for (int i = 0; i < 2; i++)
		SAME(waitpid(children[i], &status, WUNTRACED | WNOHANG), 0);
	SAME(waitpid(children[2], &status, WUNTRACED | WNOHANG), children[2]);
	for (int i = 0; i < 3; i++) {
		pid_t got;
		OK(kill(children[i], SIGCONT));
		do
			got = waitpid(children[i], &status, 0);
		while (got < 0 && errno == EINTR);
		SAME(got, children[i]);
		CHECK(WIFEXITED(status));
		SAME(WEXITSTATUS(status), 21);
	}
	pass();
}
