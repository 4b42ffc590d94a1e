/* Memory protection keys: the keys of mappings and each thread's own rights. */
#include "spin.h"

static int key, other;

static void *body(void *argument)
{
	int number = (int)(intptr_t)argument;
	OK(pkey_set(key, number ? PKEY_DISABLE_WRITE : PKEY_DISABLE_ACCESS));
	set(&spinning[number], 1);
	await(&spinning[number], 2);
	SAME(pkey_get(key), number ? PKEY_DISABLE_WRITE : PKEY_DISABLE_ACCESS);
	return NULL;
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	char *area = private(4 * PAGE);
	key = pkey_alloc(0, 0);
	if (key < 0) {
		ready_and_hold();
		pass();
	}
	other = OK(pkey_alloc(0, 0));
	OK(pkey_free(key));
	fill(area, 4 * PAGE, 1);
	key = other; /* leaves a gap below */
	OK(pkey_mprotect(area, 2 * PAGE, PROT_READ | PROT_WRITE, key));
	spin_in_threads(body, 2);
}
