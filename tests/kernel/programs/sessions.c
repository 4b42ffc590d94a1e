/* Sessions and groups: own ones, inherited ones, one taken in the middle of forking. */
#include "selfcheck.h"

struct seen {
	pid_t pid, sid, pgid;
};
static struct seen *seen;
static struct gate gate;

static void note(int slot)
{
	seen[slot] = (struct seen){getpid(), getsid(0), getpgrp()};
	gate_child_is_set(&gate);
	hold();
	SAME(getpid(), seen[slot].pid);
	SAME(getsid(0), seen[slot].sid);
	SAME(getpgrp(), seen[slot].pgid);
}

static pid_t start(int slot, void (*body)(int))
{
	pid_t child = OK(fork());
	if (child == 0) {
		body(slot);
		_exit(0);
	}
	return child;
}

static void leader_with_group(int slot)
{
	pid_t child[3];
	OK(setsid());
	child[0] = start(slot + 1, note);
	child[1] = start(slot + 2, note);
	OK(setpgid(child[0], child[0]));
	OK(setpgid(child[1], child[0]));
	note(slot);
	reap(child[0]);
	reap(child[1]);
}

static void setsid_in_the_middle(int slot)
{
	pid_t before = start(slot + 1, note);
	OK(setsid());
	pid_t after = start(slot + 2, note);
	note(slot);
	reap(before);
	reap(after);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	seen = shared(PAGE);
	gate_make(&gate);
	pid_t a = start(0, leader_with_group), b = start(3, setsid_in_the_middle), c = start(6, note);
	OK(setpgid(c, c));
	/* seen[] of a child may have been noted before its setpgid: note it again from here. */
	gate_wait(&gate, 7);
	for (int i = 0; i < 7; i++)
		seen[i].pgid = OK(getpgid(seen[i].pid));
	ready_and_hold();
	reap(a);
	reap(b);
	reap(c);
	pass();
}
