/* A userfaultfd of the program's own: not on memory that is tracked, and no checkpoint of what is registered with it. */
#include "phases.h"
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

enum { SIZE = 16 * PAGE };

#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif

static int try_to_register(int uffd, void *at)
{
	struct uffdio_register registration = {.range = {(uintptr_t)at, SIZE}, .mode = UFFDIO_REGISTER_MODE_WP};
	return ioctl(uffd, UFFDIO_REGISTER, &registration);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	char *tracked = private(SIZE);
	fill(tracked, SIZE, 1);
	phase_is_over(1);
	char *own = private(SIZE);
	fill(own, SIZE, 2);
	int uffd = OK(syscall(SYS_userfaultfd, O_CLOEXEC | 1));
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_WP_ASYNC};
	OK(ioctl(uffd, UFFDIO_API, &api));
	FAILS(try_to_register(uffd, tracked), EBUSY);
	OK(try_to_register(uffd, own));
	SAME(dup2(uffd, 77), 77);
	close(uffd);
	phase_is_over(2); /* somebody outside takes a copy of 77 */
	close(77);
	fill(own, SIZE, 3);
	phase_is_over(3);
	tracked[0] = 7;
	ready_and_hold();
	SAME(tracked[0], 7);
	filled(own, SIZE, 3);
	pass();
}
