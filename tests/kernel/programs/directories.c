/* Open directories: read half-way, used as the base of other calls; and descriptors that are just paths. */
#include "selfcheck.h"
#include <dirent.h>

enum { FILES = 300 };

int main(int argc, char **argv)
{
	begin(argc, argv);
	static bool seen[FILES];
	OK(mkdir(in_directory("many"), 0755));
	int base = OK(open(in_directory("many"), O_RDONLY | O_DIRECTORY));
	char name[16], link[64], path[PATH_MAX] = "";
	for (int i = 0; i < FILES; i++) {
		snprintf(name, sizeof name, "%d", i);
		close(OK(openat(base, name, O_CREAT | O_WRONLY, 0644)));
	}
	OK(symlinkat("12", base, "link"));
	int only_path = OK(open(in_directory("many/7"), O_PATH | O_CLOEXEC));
	int only_link = OK(open(in_directory("many/link"), O_PATH | O_NOFOLLOW));
	int only_directory = OK(open(in_directory("many"), O_PATH | O_DIRECTORY));
	int walk = OK(openat(base, ".", O_RDONLY | O_DIRECTORY));
	/* small buffers: part of it before the hold, the rest after */
	struct {
		uint64_t inode;
		int64_t offset;
		uint16_t length;
		uint8_t type;
		char name[];
	} *entry;
	char buffer[512];
	int total = 0;
	for (int round = 0;; round++) {
		long got = OK(syscall(SYS_getdents64, walk, buffer, sizeof buffer));
		if (got == 0)
			break;
		for (char *at = buffer; at < buffer + got; at += entry->length) {
			entry = (void *)at;
			char *end;
			long number = strtol(entry->name, &end, 10);
			if (end != entry->name && !*end) {
				CHECK(!seen[number]);
				seen[number] = true;
				total++;
			}
		}
		if (round == 6)
			ready_and_hold();
	}
	SAME(total, FILES);
	OK(faccessat(base, "299", F_OK, 0));
	OK(faccessat(only_directory, "299", F_OK, 0));
	SAME(fcntl(only_path, F_GETFL) & O_PATH, O_PATH);
	SAME(fcntl(only_path, F_GETFD), FD_CLOEXEC);
	FAILS(read(only_path, path, 1), EBADF);
	struct stat status;
	OK(fstat(only_path, &status));
	CHECK(S_ISREG(status.st_mode));
	OK(fstat(only_link, &status));
	CHECK(S_ISLNK(status.st_mode));
	OK(readlinkat(only_link, "", link, sizeof link));
	CHECK(memcmp(link, "12", 2) == 0);
	pass();
}
