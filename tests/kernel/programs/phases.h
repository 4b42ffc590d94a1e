/* A program of several phases, with a checkpoint behind each: phase_is_over(1) waits for the FIFO `phase.1`. */
#ifndef PHASES_H
#define PHASES_H
#include "selfcheck.h"

MAYBE void phase_is_over(int number)
{
	char name[32], path[sizeof test_directory + 32];
	snprintf(name, sizeof name, "over.%d", number);
	publish(name, "over\n");
	snprintf(path, sizeof path, "%s/phase.%d", test_directory, number);
	int fd;
	do
		fd = open(path, O_RDONLY | O_CLOEXEC);
	while (fd < 0 && errno == EINTR);
	OK(fd);
	close(fd);
}

MAYBE uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}
#endif
