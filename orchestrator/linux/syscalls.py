"""The system calls that a tape may hold: one line a call, one column an architecture.

A call that an architecture lacks stands as "-" and asking for it raises: falling back to another
architecture's number would run a different call. The last columns say how an argument is printed.
Numbers are compared with the installed headers by a test. See syscalls(2).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

_TABLE = """\
read                  0     63    fd ptr size
write                 1     64    fd ptr size
close                 3     57    fd
lseek                 8     62    fd off whence
mmap                  9     222   addr size prot mapflags fd off
mprotect              10    226   addr size prot
pkey_mprotect         329   288   addr size prot int
munmap                11    215   addr size
brk                   12    214   addr
rt_sigaction          13    134   signal ptr ptr size
rt_sigprocmask        14    135   int ptr ptr size
rt_sigreturn          15    139
ioctl                 16    29    fd hex arg
pread64               17    67    fd ptr size off
pwrite64              18    68    fd ptr size off
preadv                295   69    fd ptr int off int
pwritev               296   70    fd ptr int off int
readv                 19    65    fd ptr int
writev                20    66    fd ptr int
mremap                25    216   addr size size hex addr
msync                 26    227   addr size int
mincore               27    232   addr size ptr
madvise               28    233   addr size madvice
shmget                29    194   hex size oct
shmat                 30    196   int addr hex
shmctl                31    195   int int ptr
shmdt                 67    197   addr
semget                64    190   hex int oct
semctl                66    191   int int int arg
semop                 65    193   int ptr size
msgget                68    186   hex oct
msgctl                71    187   int int ptr
msgsnd                69    189   int ptr size int
dup                   32    23    fd
dup3                  292   24    fd fd fdflags
pause                 34    -
nanosleep             35    101   ptr ptr
clock_nanosleep       230   115   int int ptr ptr
getitimer             36    102   int ptr
setitimer             38    103   int ptr ptr
getpid                39    172
gettid                186   178
getppid               110   173
sendfile              40    71    fd fd ptr size
socket                41    198   int hex int
connect               42    203   fd ptr int
accept4               288   242   fd ptr ptr hex
sendto                44    206   fd ptr size hex ptr int
recvfrom              45    207   fd ptr size hex ptr ptr
sendmsg               46    211   fd ptr hex
recvmsg               47    212   fd ptr hex
recvmmsg              299   243   fd ptr int hex ptr
sendmmsg              307   269   fd ptr int hex
shutdown              48    210   fd int
bind                  49    200   fd ptr int
listen                50    201   fd int
getsockname           51    204   fd ptr ptr
getpeername           52    205   fd ptr ptr
socketpair            53    199   int hex int ptr
setsockopt            54    208   fd int int ptr int
getsockopt            55    209   fd int int ptr ptr
clone3                435   435   ptr size
clone                 56    220   hex ptr ptr ptr hex
exit                  60    93    int
exit_group            231   94    int
wait4                 61    260   pid ptr hex ptr
waitid                247   95    int pid ptr hex ptr
kill                  62    129   pid signal
tgkill                234   131   pid tid signal
uname                 63    160   ptr
fcntl                 72    25    fd fcntl arg
flock                 73    32    fd int
fsync                 74    82    fd
truncate              76    45    str off
ftruncate             77    46    fd off
fallocate             285   47    fd hex off size
getcwd                79    17    ptr size
chdir                 80    49    str
fchdir                81    50    fd
mkdirat               258   34    dirfd str oct
unlinkat              263   35    dirfd str hex
symlinkat             266   36    str dirfd str
renameat2             316   276   dirfd str dirfd str hex
linkat                265   37    dirfd str dirfd str hex
mknodat               259   33    dirfd str oct hex
fchmod                91    52    fd oct
fchmodat              268   53    dirfd str oct
fchown                93    55    fd int int
fchownat              260   54    dirfd str int int hex
umask                 95    166   oct
chroot                161   51    str
pivot_root            155   41    str str
mount                 165   40    str str str hex ptr
umount2               166   39    str hex
sethostname           170   161   ptr size
setdomainname         171   162   ptr size
setpgid               109   154   pid pid
getpgid               121   155   pid
setsid                112   157
getsid                124   156   pid
setgroups             116   159   int ptr
getgroups             115   158   int ptr
setresuid             117   147   int int int
setresgid             119   149   int int int
setfsuid              122   151   int
setfsgid              123   152   int
capget                125   90    ptr ptr
capset                126   91    ptr ptr
prctl                 157   167   prctl arg arg arg arg
arch_prctl            158   -     hex arg
personality           135   92    hex
prlimit64             302   261   pid int ptr ptr
getrusage             98    165   int ptr
setpriority           141   140   int pid int
getpriority           140   141   int pid
sched_setattr         314   274   pid ptr hex
sched_getattr         315   275   pid ptr size hex
sched_setaffinity     203   122   pid size ptr
sched_getaffinity     204   123   pid size ptr
ioprio_set            251   30    int pid int
ioprio_get            252   31    int pid
sigaltstack           131   132   ptr ptr
rt_sigpending         127   136   ptr size
rt_sigtimedwait       128   137   ptr ptr ptr size
rt_sigqueueinfo       129   138   pid signal ptr
rt_tgsigqueueinfo     297   240   pid tid signal ptr
set_tid_address       218   96    addr
set_robust_list       273   99    addr size
get_robust_list       274   100   pid ptr ptr
futex                 202   98    addr hex int ptr addr int
membarrier            324   283   int hex int
rseq                  334   293   addr int hex hex
timer_create          222   107   int ptr ptr
timer_settime         223   110   int int ptr ptr
timer_gettime         224   108   int ptr
timer_getoverrun      225   109   int
timer_delete          226   111   int
clock_gettime         228   113   int ptr
clock_settime         227   112   int ptr
timerfd_create        283   85    int hex
timerfd_settime       286   86    fd hex ptr ptr
timerfd_gettime       287   87    fd ptr
eventfd2              290   19    int hex
signalfd4             289   74    fd ptr size hex
epoll_create1         291   20    hex
epoll_ctl             233   21    fd int fd ptr
fanotify_init         300   262   hex hex
fanotify_mark         301   263   fd hex hex dirfd str
inotify_init1         294   26    hex
inotify_add_watch     254   27    fd str hex
inotify_rm_watch      255   28    fd int
pipe2                 293   59    ptr fdflags
splice                275   76    fd ptr fd ptr size hex
tee                   276   77    fd fd size hex
vmsplice              278   75    fd ptr int hex
memfd_create          319   279   str hex
openat                257   56    dirfd str oflags oct
openat2               437   437   dirfd str ptr size
close_range           436   436   fd fd hex
unshare               272   97    clone
setns                 308   268   fd clone
seccomp               317   277   hex hex ptr
userfaultfd           323   282   hex
pidfd_open            434   434   pid hex
pidfd_getfd           438   438   fd fd hex
pidfd_send_signal     424   424   fd signal ptr hex
newfstatat            262   79    dirfd str ptr hex
fstat                 5     80    fd ptr
statx                 332   291   dirfd str hex hex ptr
copy_file_range       326   285   fd ptr fd ptr size hex
io_setup              206   0     int ptr
io_destroy            207   1     addr
open_by_handle_at     304   265   fd ptr oflags
bpf                   321   280   int ptr size
mlock2                325   284   addr size hex
mlockall              151   230   hex
mq_open               240   180   str oflags oct ptr
mseal                 462   462   addr size hex
get_mempolicy         239   236   ptr ptr int addr hex
set_mempolicy         238   237   int ptr int
modify_ldt            154   -     int ptr size
keyctl                250   219   int arg arg arg arg
mbind                 237   235   addr size int ptr int hex
move_mount            429   429   dirfd str dirfd str hex
open_tree             428   428   dirfd str hex
fsopen                430   430   str hex
fsconfig              431   431   fd int str str int
fsmount               432   432   fd hex hex
mount_setattr         442   442   dirfd str hex ptr size
utimensat             280   88    dirfd str ptr hex
setxattr              188   5     str str ptr size int
fsetxattr             190   7     fd str ptr size int
poll                  7     -     ptr int int
ppoll                 271   73    ptr int ptr ptr size
select                23    -     int ptr ptr ptr ptr
pselect6              270   72    int ptr ptr ptr ptr ptr
epoll_wait            232   -     fd ptr int int
epoll_pwait           281   22    fd ptr int int ptr size
epoll_pwait2          441   441   fd ptr int ptr ptr size
restart_syscall       219   128
semtimedop            220   192   int ptr size ptr
io_submit             209   2     addr int ptr
io_getevents          208   4     addr int int ptr ptr
io_uring_setup        425   425   int ptr
io_uring_enter        426   426   fd int int hex ptr size
msgrcv                70    188   int ptr size int int
accept                43    202   fd ptr ptr
futex_waitv           449   449   ptr int hex ptr int
kcmp                  312   272   pid pid int arg arg
process_vm_readv      310   270   pid ptr int ptr int hex
"""


class Syscall(NamedTuple):
    """One row: the call's name, its number by architecture, and the kinds of its arguments."""

    name: str
    x86_64: int | None
    aarch64: int | None
    arguments: tuple[str, ...]


def _parse(table: str) -> dict[str, Syscall]:
    rows = {}
    for line in table.splitlines():
        name, x86_64, aarch64, *arguments = line.split()
        rows[name] = Syscall(
            name,
            None if x86_64 == "-" else int(x86_64),
            None if aarch64 == "-" else int(aarch64),
            tuple(arguments),
        )
    return rows


SYSCALLS = _parse(_TABLE)


@cache
def numbers(machine: str) -> dict[str, int]:
    """Map every call that ``machine`` has to its number."""
    if machine not in ("x86_64", "aarch64"):
        raise LookupError(f"no system-call table for {machine}")
    column = {name: getattr(row, machine) for name, row in SYSCALLS.items()}
    return {name: number for name, number in column.items() if number is not None}
