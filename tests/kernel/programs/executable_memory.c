/* Code made at run time, in memory that is readable and executable. */
#include "selfcheck.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	static const unsigned char code[] = {0x8d, 0x47, 0x2a, 0xc3}; /* lea eax, [rdi+42]; ret */
	unsigned char *jit = private(PAGE);
	memcpy(jit, code, sizeof code);
	OK(mprotect(jit, PAGE, PROT_READ | PROT_EXEC));
	int (*function)(int) = (int (*)(int))(void *)jit;
	SAME(function(1), 43);
	ready_and_hold();
	SAME(function(58), 100);
	OK(mprotect(jit, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC));
	jit[2] = 1;
	SAME(function(58), 59);
	pass();
}
