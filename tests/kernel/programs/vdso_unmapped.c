/* A child without a vDSO, another with something else in its place, and one that has moved it. */
#include "selfcheck.h"

struct range {
	char *start, *end;
};

/* Find [vdso], [vvar] and [vvar_vclock], in order of addresses. */
static int blobs(struct range found[4])
{
	char line[4096];
	int count = 0;
	FILE *file = fopen("/proc/self/maps", "re");
	CHECK(file);
	while (fgets(line, sizeof line, file))
		if (strstr(line, "[vdso]") || strstr(line, "[vvar")) {
			CHECK(count < 4);
			SAME(sscanf(line, "%p-%p", (void **)&found[count].start, (void **)&found[count].end), 2);
			count++;
		}
	fclose(file);
	return count;
}


static void check(int how, const struct range *was, int count)
{
	struct range is[4];
	int now = blobs(is);
	if (how == 2) {
		SAME(now, count);
		SAME(is[now - 1].start - was[count - 1].start, 64 << 20);
		return;
	}
	SAME(now, 0);
	if (how == 1)
		filled(was[0].start, was[count - 1].end - was[0].start, 7);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	struct gate gate;
	pid_t children[3];
	struct range was[4];
	int count = blobs(was);
	CHECK(count > 0);
	gate_make(&gate);
	for (int how = 0; how < 3; how++) {
		children[how] = OK(fork());
		if (children[how])
			continue;
		for (int i = 0; i < count; i++) {
			size_t size = was[i].end - was[i].start;
			if (how == 2)
				OK(mremap(was[i].start, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, was[i].start + (64 << 20)));
			else
				OK(munmap(was[i].start, size));
		}
		if (how == 1) {
			size_t size = was[count - 1].end - was[0].start;
			int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
			OK(mmap(was[0].start, size, PROT_READ | PROT_WRITE, flags, -1, 0));
			fill(was[0].start, size, 7);
		}
		gate_child_is_set(&gate);
		hold();
		check(how, was, count);
		_exit(0);
	}
	gate_wait(&gate, 3);
	ready_and_hold();
	for (int how = 0; how < 3; how++)
		reap(children[how]);
	pass();
}
