/* Thousands of mappings. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	enum { COUNT = 3000 };
	char *area = OK(mmap(NULL, 2 * COUNT * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	for (int i = 0; i < COUNT; i++) {
		OK(mprotect(area + 2 * i * PAGE, PAGE, PROT_READ | PROT_WRITE));
		*(int *)(area + 2 * i * PAGE) = i;
	}
	ready_and_hold();
	for (int i = 0; i < COUNT; i++)
		SAME(*(int *)(area + 2 * i * PAGE), i);
	pass();
}
