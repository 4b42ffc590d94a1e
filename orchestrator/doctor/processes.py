"""Probes of what orch does to processes: making them with chosen ids, tracing them, looking into them."""

from __future__ import annotations

import ctypes
import os
import signal
from functools import partial

from orchestrator.doctor.probe import Probe, attempt_in_child, bystander
from orchestrator.linux import clone, kcmp, nsfs, pidfd, ptrace

_PR_TIMER_CREATE_RESTORE_IDS = 77
_PR_TIMER_CREATE_RESTORE_IDS_GET = 2
_PTRACE_OPTIONS = ptrace.PTRACE_O_TRACESYSGOOD | ptrace.PTRACE_O_EXITKILL

_libc = ctypes.CDLL(None, use_errno=True)


def _nothing() -> None:
    pass


def _set_tid() -> None:
    # A process id that was free a moment ago; if another took it meanwhile, the next one.
    for _ in range(5):
        free = os.fork()
        if free == 0:
            os._exit(0)
        os.waitpid(free, 0)
        try:
            attempt_in_child(_nothing, partial(clone.fork, set_tid=(free,)))
            return
        except FileExistsError:
            continue
    raise LookupError("no process id stays free long enough to be tried")


def _namespace(name: str) -> None:
    attempt_in_child(_nothing, partial(clone.fork, nsfs.TYPES[name]))


def _time_offsets() -> None:
    def attempt() -> None:
        nsfs.unshare(nsfs.CLONE_NEWTIME)
        with open("/proc/self/timens_offsets", "w") as offsets:
            offsets.write("monotonic 10 0\nboottime 10 0")

    attempt_in_child(attempt)


def _trace(options: int = _PTRACE_OPTIONS) -> None:
    with bystander() as pid:
        ptrace.seize(pid, options)
        ptrace.interrupt(pid)
        ptrace.wait_for(pid)
        ptrace.get_regset(pid, ptrace.NT_PRSTATUS)


def _rseq() -> None:
    with bystander() as pid:
        ptrace.seize(pid, _PTRACE_OPTIONS)
        ptrace.interrupt(pid)
        ptrace.wait_for(pid)
        ptrace.rseq_configuration(pid)


def _getfd() -> None:
    with bystander() as pid:
        door = pidfd.pidfd_open(pid)
        reading, writing = os.pipe2(os.O_CLOEXEC)
        os.close(reading)
        try:
            os.close(pidfd.pidfd_getfd(door, 0) if _has_stdin(pid) else writing)
        finally:
            os.close(door)


def _has_stdin(pid: int) -> bool:
    return os.path.lexists(f"/proc/{pid}/fd/0")


def _kcmp() -> None:
    with bystander() as pid:
        if kcmp.kcmp(os.getpid(), pid, kcmp.KCMP_VM) == 0:
            raise LookupError("it says that two processes have one memory")


def _timer_ids() -> None:
    if _libc.prctl(_PR_TIMER_CREATE_RESTORE_IDS, _PR_TIMER_CREATE_RESTORE_IDS_GET, 0, 0, 0) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _subreaper() -> None:
    import prctl

    attempt_in_child(lambda: prctl.set_child_subreaper(1))


def _queue_signal() -> None:
    # rt_sigqueueinfo with the si_code of a signal that the kernel itself sent: allowed to oneself alone.
    def attempt() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        info = signal.SIGUSR1.to_bytes(4, "little") + bytes(4) + (0x80).to_bytes(4, "little", signed=True) + bytes(116)
        if _libc.syscall(ctypes.c_long(129), os.getpid(), int(signal.SIGUSR1), info) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    attempt_in_child(attempt)


PROBES = (
    Probe("clone3 set_tid", _set_tid, "processes cannot get their old PIDs back", essential=True),
    Probe("ptrace: seize and interrupt", _trace, "jobs cannot be held or rebuilt", essential=True),
    Probe(
        "ptrace: suspend seccomp",
        partial(_trace, _PTRACE_OPTIONS | ptrace.PTRACE_O_SUSPEND_SECCOMP),
        "jobs with seccomp filters cannot be checkpointed",
    ),
    Probe("PTRACE_GET_RSEQ_CONFIGURATION", _rseq, "restartable sequences are not restored"),
    Probe("pidfd_getfd", _getfd, "open files cannot be looked into", essential=True),
    Probe("kcmp", _kcmp, "what processes share (memory, open files) cannot be told", essential=True),
    Probe("child subreaper", _subreaper, "orphans of a job cannot be supervised", essential=True),
    Probe("rt_sigqueueinfo to oneself", _queue_signal, "queued signals lose their data"),
    Probe("PR_TIMER_CREATE_RESTORE_IDS", _timer_ids, "POSIX timers with gaps in their ids cannot be restored"),
    Probe("new PID namespace", partial(_namespace, "pid"), "PIDs must be free on the host for a restore"),
    Probe("new mount namespace", partial(_namespace, "mnt"), "jobs with mounts of their own cannot be restored"),
    Probe("new UTS namespace", partial(_namespace, "uts"), "jobs with a host name of their own cannot be restored"),
    Probe("new IPC namespace", partial(_namespace, "ipc"), "System V IPC objects cannot be restored under their ids"),
    Probe("new network namespace", partial(_namespace, "net"), "jobs with a network of their own cannot be restored"),
    Probe(
        "new cgroup namespace", partial(_namespace, "cgroup"), "jobs with a cgroup view of their own cannot be restored"
    ),
    Probe("new user namespace", partial(_namespace, "user"), "jobs with users of their own cannot be restored"),
    Probe("new time namespace", partial(_namespace, "time"), "monotonic time jumps at a restore"),
    Probe("time namespace offsets", _time_offsets, "monotonic time jumps at a restore after a reboot or elsewhere"),
)
