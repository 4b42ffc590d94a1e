/* A stack that has grown and goes on growing, to its limit and not beyond. */
#include "selfcheck.h"

static int descend(int depth, volatile char *above)
{
	volatile char frame[3000];
	memset((void *)frame, depth & 0x7f, sizeof frame);
	int value = 0;
	if (depth)
		value = descend(depth - 1, frame);
	for (size_t i = 0; i < sizeof frame; i += 500)
		SAME(frame[i], depth & 0x7f);
	if (above)
		SAME(above[1000], (depth + 1) & 0x7f);
	return value + 1;
}

static int hold_deep(int depth)
{
	volatile char frame[3000];
	memset((void *)frame, depth & 0x7f, sizeof frame);
	if (depth)
		hold_deep(depth - 1);
	else
		ready_and_hold();
	for (size_t i = 0; i < sizeof frame; i += 100)
		SAME(frame[i], depth & 0x7f);
	return frame[0];
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	hold_deep(300); /* a megabyte in use while it is saved */
	SAME(descend(2000, NULL), 2001); /* six: more than ever before */
	pass();
}
