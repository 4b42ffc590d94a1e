/* Seccomp filters that answer one system call with an error, or end the process. */
#ifndef FILTERS_H
#define FILTERS_H
#include "selfcheck.h"
#include <linux/filter.h>
#include <linux/seccomp.h>

MAYBE long filter_calls(unsigned flags, const int *calls, int count, unsigned action)
{
	struct sock_filter code[32];
	int length = 0;
	code[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (int i = 0; i < count; i++)
		code[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i], count - i, 0);
	code[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	code[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action);
	struct sock_fprog program = {length, code};
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

/* From here on a call fails with an errno of ours. */
MAYBE long filter_errno(unsigned flags, int call, int error)
{
	return filter_calls(flags, &call, 1, SECCOMP_RET_ERRNO | error);
}
#endif
