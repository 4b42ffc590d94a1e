/* A breakpoint in the debug registers that a tracer has set and left behind. */
#include "selfcheck.h"
#include <sys/ptrace.h>
#include <sys/user.h>

#define REGISTER(number) (offsetof(struct user, u_debugreg) + 8 * (number))
#define WRITES_OF_8_BYTES_AT_0 (1L | 1L << 16 | 2L << 18)

static volatile long watched __attribute__((aligned(8)));
static volatile int caught;

static void on_trap(int signal)
{
	(void)signal;
	caught++;
}

static void set_by_tracer(pid_t self)
{
	int status;
	if (ptrace(PTRACE_SEIZE, self, 0, 0) < 0 || ptrace(PTRACE_INTERRUPT, self, 0, 0) < 0)
		_exit(10);
	if (waitpid(self, &status, __WALL) != self)
		_exit(11);
	if (ptrace(PTRACE_POKEUSER, self, REGISTER(0), &watched) < 0)
		_exit(12);
	if (ptrace(PTRACE_POKEUSER, self, REGISTER(7), WRITES_OF_8_BYTES_AT_0) < 0)
		_exit(13);
	ptrace(PTRACE_DETACH, self, 0, 0);
	_exit(0);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	OK(signal(SIGTRAP, on_trap) == SIG_ERR ? -1 : 0);
	OK(prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0) < 0 && errno != EINVAL ? -1 : 0);
	pid_t self = getpid();
	pid_t tracer = OK(fork());
	if (tracer == 0)
		set_by_tracer(self);
	reap(tracer);
	watched = 1;
	SAME(caught, 1);
	ready_and_hold();
	SAME(caught, 1);
	watched = 2;
	SAME(caught, 2);
	pass();
}
