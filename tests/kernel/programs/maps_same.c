/* Every mapping where it was, with the same protection, offset, file and flags. */
#include "selfcheck.h"

struct mapping {
	unsigned long start, end;
	char rest[1024], flags[1024];
};

static void print(FILE *out, const struct mapping *one)
{
	if (one->end)
		fprintf(out, "%lx-%lx %s%s", one->start, one->end, one->rest, one->flags);
}

/* smaps without what the kernel counts: the mapping lines and the VmFlags. Neighbours that are alike count as one:
 * whether the kernel has joined them depends on what was written to them when. */
static char *layout(void)
{
	size_t size = 0;
	char *text = NULL, line[1024];
	FILE *out = open_memstream(&text, &size), *in = fopen("/proc/self/smaps", "re");
	if (!out || !in)
		FAIL("smaps: %s", strerror(errno));
	struct mapping last = {0}, now = {0};
	while (fgets(line, sizeof line, in)) {
		int at = 0;
		unsigned long start, end; /* not now's: "FilePmdMapped" begins with a hexadecimal figure too */
		if (sscanf(line, "%lx-%lx %n", &start, &end, &at) == 2 && at) {
			now.start = start;
			now.end = end;
			snprintf(now.rest, sizeof now.rest, "%s", line + at);
		} else if (strncmp(line, "VmFlags:", 8) == 0) {
			snprintf(now.flags, sizeof now.flags, "%s", line);
			bool alike = strcmp(last.rest, now.rest) == 0 && strcmp(last.flags, now.flags) == 0;
			if (alike && last.end == now.start && strstr(now.rest, " 00000000 00:00 0 ")) {
				last.end = now.end;
				continue;
			}
			print(out, &last);
			last = now;
		}
	}
	print(out, &last);
	fclose(in);
	fclose(out);
	return text;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	OK(sbrk(1 << 20));
	char *kept = private(1 << 20);
	int fd = OK(open(in_directory("data"), O_RDWR | O_CREAT, 0666));
	OK(ftruncate(fd, 1 << 20));
	OK(mmap(NULL, 1 << 20, PROT_READ, MAP_SHARED, fd, 0));
	OK(mmap(NULL, 1 << 18, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 1 << 19));
	OK(mmap(NULL, 1 << 18, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, PAGE));
	static const int advice[] = {MADV_DONTFORK, MADV_DONTDUMP, MADV_WIPEONFORK, MADV_NOHUGEPAGE, MADV_HUGEPAGE, MADV_SEQUENTIAL, MADV_RANDOM, MADV_MERGEABLE};
	for (int i = 0; i < 8; i++) {
		char *area = private(32 * PAGE);
		area[0] = 1;
		OK(madvise(area + 8 * PAGE, 8 * PAGE, advice[i]));
	}
	OK(mlock(private(16 * PAGE), 4 * PAGE));
	OK(mlock2(private(16 * PAGE), 4 * PAGE, MLOCK_ONFAULT));
	OK(mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
	free(layout());
	char *text = layout();
	strcpy(kept, text);
	free(text);
	ready_and_hold();
	text = layout();
	char *a = kept, *b = text;
	while (*a || *b) {
		int length = strcspn(a, "\n");
		if (strncmp(a, b, length + 1) != 0)
			FAIL("a mapping was %.*s and is %.*s", length, a, (int)strcspn(b, "\n"), b);
		a += length + 1;
		b += length + 1;
	}
	pass();
}
