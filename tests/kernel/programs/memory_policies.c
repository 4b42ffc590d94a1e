/* NUMA policies of mappings (mbind), private and shared. Without effect, and not kept, where there is one node. */
#include "selfcheck.h"
#include <sys/syscall.h>

#define NODES 1024
#define BIND 2
#define INTERLEAVE 3
#define OF_ADDRESS 2L
#define ALLOWED_NODES 4L

static void set_policy(void *at, int mode)
{
	unsigned long node0[NODES / 64] = {1};
	OK(syscall(SYS_mbind, at, 2 * PAGE, mode, node0, NODES + 1L, 0));
}

static void has_policy(void *at, int wanted)
{
	unsigned long nodes[NODES / 64] = {0};
	int mode = -1;
	OK(syscall(SYS_get_mempolicy, &mode, nodes, NODES + 1L, at, OF_ADDRESS));
	SAME(mode, wanted);
}

static bool several_nodes(void)
{
	unsigned long nodes[NODES / 64] = {0};
	int count = 0;
	if (syscall(SYS_get_mempolicy, NULL, nodes, NODES + 1L, NULL, ALLOWED_NODES) < 0)
		return false;
	for (int i = 0; i < NODES / 64; i++)
		count += __builtin_popcountl(nodes[i]);
	return count > 1;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	bool kept = several_nodes() || (argc > 2 && strcmp(argv[2], "always") == 0);
	char *own = private(4 * PAGE), *common = shared(4 * PAGE);
	fill(own, 4 * PAGE, 1);
	if (kept) {
		set_policy(own + PAGE, BIND);
		set_policy(common, INTERLEAVE);
	}
	ready_and_hold();
	filled(own, 4 * PAGE, 1);
	if (kept) {
		has_policy(own, 0);
		has_policy(own + PAGE, BIND);
		has_policy(own + 2 * PAGE, BIND);
		has_policy(own + 3 * PAGE, 0);
		has_policy(common + PAGE, INTERLEAVE);
		has_policy(common + 2 * PAGE, 0);
	}
	pass();
}
