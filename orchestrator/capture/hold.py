"""Hold a job: freeze it, seize every thread, thaw it; and let it go again."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from orchestrator.errors import CaptureFailed, FreezeTimeout, JobBusy, NoSuchProcess, NotPermitted
from orchestrator.ids import FarAddr, HostPid, HostTid, Pid, Tid
from orchestrator.kinds.task.traps import Traps, arm, disarm, read_traps
from orchestrator.linux import ptrace, syscalls
from orchestrator.linux.arch import x86_64 as arch
from orchestrator.linux.call import machine
from orchestrator.linux.pidfd import open_task
from orchestrator.linux.proc_misc import list_threads, read_auxv, read_children
from orchestrator.linux.proc_stat import Stat, read_stat, standing
from orchestrator.linux.proc_status import Status, read_status
from orchestrator.tape import tracee
from orchestrator.tape.memory import ProcMemory
from orchestrator.tape.tracee import Call, Tracee, Workspace

_PROT_RWX, _PROT_RX, _PROT_RW = 7, 5, 3
_MAP_PRIVATE_ANONYMOUS, _MAP_FIXED = 0x22, 0x10
_PAGE = 4096
_PF_EXITING = 0x4
_DYING_WITHIN = 1.0
_PF_USER_WORKER = 0x4000
"""Since Linux 5.12 of io_uring, since 6.4 of vhost."""
_KILLED_WITHIN = 30.0
"""Seconds within which one more task has to end; a large memory takes a second for some ten GiB."""


class HeldProcess(msgspec.Struct):
    """A process of the job, with all of its threads stopped; a zombie has none."""

    host: HostPid
    stat: Stat
    status: Status
    pid: Pid
    threads: list[Tracee] = msgspec.field(default_factory=list)
    statuses: dict[HostTid, Status] = msgspec.field(default_factory=dict)
    """Of the threads."""
    stopped_by: int = 0
    memory: ProcMemory | None = None
    auxv: bytes = b""
    workspace: Workspace | None = None
    owns_workspace: bool = False
    pidfd: int = -1
    traps: dict[HostTid, Traps] = msgspec.field(default_factory=dict)
    """Which threads trap where, when they are not held."""
    living: HostTid | None = None
    """A thread that lives, if the main thread has ended before others."""
    workers: list[str] = msgspec.field(default_factory=list)
    """Threads that never leave the kernel, as "TID (name)": they can be stopped, but make no calls for us."""

    @property
    def is_zombie(self) -> bool:
        """Whether it ended and waits for its parent."""
        return self.stat.state == "Z" and not self.headless

    @property
    def headless(self) -> bool:
        """Whether the main thread has ended before others."""
        return self.living is not None

    @property
    def seen(self) -> HostPid:
        """The number by which /proc shows its files and memory: not that of a main thread that has ended."""
        return self.host if self.living is None else HostPid(self.living)

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"{self.host} ({os.fsdecode(self.stat.comm)})"

    @property
    def leader(self) -> Tracee:
        """The thread that process-wide questions go to."""
        return self.threads[0]

    def make_workspace(self, tape_bytes: int) -> Workspace:
        """Map memory for tapes in the process."""
        make_workspaces([(self, tape_bytes)])
        assert self.workspace is not None
        return self.workspace

    def _workspace_apart(self, size: int) -> int:
        """Map pages to write and to run, where both at once are denied. We write to either by force."""
        call, mmap = self.leader.call, _number("mmap")
        base = call(mmap, 0, size, _PROT_RW, _MAP_PRIVATE_ANONYMOUS, -1, 0)
        if base > 0:
            code = call(mmap, base, _PAGE, _PROT_RX, _MAP_PRIVATE_ANONYMOUS | _MAP_FIXED, -1, 0)
            if code < 0:
                call(_number("munmap"), base, size)
                return code
        return base

    def take_workspace(self, base: int, size: int) -> None:
        """Use what was mapped, or raise CaptureFailed if ``base`` is -errno."""
        if -4095 <= base < 0:
            raise CaptureFailed(
                f"task {self.name} has no room for {size // 1024} KiB of workspace: {os.strerror(-base)}",
                hint="its address space limit (RLIMIT_AS) or its cgroup's memory limit may be reached",
            )
        assert self.memory is not None
        self.workspace = Workspace(FarAddr(base), size)
        self.owns_workspace = True
        self.memory.write(self.workspace.base, arch.TAPE_LOOP)

    def drop_workspace(self) -> None:
        """Unmap it."""
        drop_workspaces([self])


def make_workspaces(wanted: Sequence[tuple[HeldProcess, int]]) -> None:
    """Map memory for tapes, of so many bytes each, in processes; all at the same time."""
    sizes = [tracee.workspace_size(tape_bytes, process.leader.xstate) for process, tape_bytes in wanted]
    mapping = (_PROT_RWX, _MAP_PRIVATE_ANONYMOUS, -1, 0)
    bases = tracee.call_together(
        [
            Call(process.leader, _number("mmap"), (0, size, *mapping))
            for (process, _), size in zip(wanted, sizes, strict=True)
        ]
    )
    failures: list[Exception] = []
    for (process, _), size, base in zip(wanted, sizes, bases, strict=True):
        try:
            if isinstance(base, Exception):
                raise base
            process.take_workspace(process._workspace_apart(size) if base == -errno.EACCES else base, size)
        except (CaptureFailed, tracee.TaskGone, OSError) as error:  # the others' are theirs to unmap
            failures.append(error)
    if failures:
        raise failures[0]


def drop_workspaces(processes: Iterable[HeldProcess]) -> None:
    """Unmap them; of those that ended meanwhile there is nothing left."""
    calls = []
    for process in processes:
        workspace = process.workspace
        if workspace is not None and process.owns_workspace:
            calls.append(Call(process.leader, _number("munmap"), (workspace.base, workspace.size)))
        process.workspace = None
        process.owns_workspace = False
    tracee.call_together(calls)


def _number(name: str) -> int:
    return syscalls.numbers(machine())[name]


class HeldJob:
    """All processes of a job, stopped. Let go with :meth:`release`, whatever happens."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self.processes: dict[HostPid, HeldProcess] = {}
        self.children_outside: list[tuple[HeldProcess, int]] = []
        """The living children of held processes that are not held."""
        self._seized: list[HostTid] = []
        self._tracees: dict[HostTid, Tracee] = {}
        self._stopped: dict[HostTid, int] = {}

    def seize(self, pids: Iterable[HostPid]) -> None:
        """Seize every thread of the given processes; they stop as soon as they may."""
        for pid in pids:
            for tid in list_threads(pid):
                self._seize_thread(HostTid(tid))

    def seize_tree(self, root: HostPid) -> None:
        """Seize a process and all below it, again and again until no new task shows; each stops at once.

        Without a frozen cgroup a task may fork until it is stopped itself.
        """
        known: set[int] = set()
        while True:
            if time.monotonic() > self._deadline:
                raise FreezeTimeout(
                    f"process {root} and those below it start new ones faster than these can be held",
                    hint="run it with 'orch run', or move it into a cgroup: that can be frozen",
                )
            new = [HostTid(tid) for pid in descend(root) for tid in _living_threads(pid) if tid not in known]
            if not new:
                return
            for tid in new:
                known.add(tid)
                try:
                    self._seize_thread(tid)
                except NoSuchProcess:  # a child that ended just now is no part of the job any more
                    if tid == int(root):
                        raise
                if tid in self._seized:
                    self._wait_for(tid)

    def _seize_thread(self, tid: HostTid) -> None:
        try:
            tracee.hold(tid)
        except PermissionError as error:
            stat = read_stat(tid)
            if stat.state == "Z":
                return
            owner = read_status(tid).tracer_pid
            by = f"process {owner} traces it" if owner else "the kernel refuses to trace it"
            raise JobBusy(
                f"task {tid} ({os.fsdecode(stat.comm)}) cannot be held: {by}",
                hint="end the debugger or the other checkpoint first" if owner else None,
            ) from error
        except ProcessLookupError as error:
            raise NoSuchProcess(f"task {tid} is gone") from error
        self._seized.append(tid)

    def wait(self, held: Callable[[Sequence[HostTid]], None] | None = None) -> None:
        """Wait until all seized threads have stopped, and read what they are. ``held`` is called in between."""
        for tid in self._seized:
            if tid not in self._stopped:
                self._wait_for(tid)
        if held is not None:
            held(self._seized)
        stopped = self._stopped
        by_process: dict[HostPid, dict[HostTid, Status]] = {}
        for tid in self._seized:
            status = read_status(tid)
            by_process.setdefault(HostPid(status.tgid), {})[tid] = status
            if status.seccomp:
                self._suspend_seccomp(tid)
        for pid, statuses in by_process.items():
            tids = list(statuses)
            process = self._describe(pid, statuses.get(HostTid(pid)))
            process.statuses = statuses
            if process.is_zombie:  # its other threads live on
                process.living = tids[0]
                process.status = statuses[tids[0]]
            process.auxv = read_auxv(process.seen)
            process.memory = ProcMemory(process.seen)
            process.pidfd = open_task(process.seen)
            at, stone = tracee.call_sites(process.seen, process.auxv, process.memory)
            for tid in sorted(tids, key=lambda tid: int(tid) != pid):
                vtid = process.pid if int(tid) == pid else Tid(statuses[tid].ns_pid[-1])
                thread = Tracee(tid, process.pid, Tid(vtid), process.memory, at, stone)
                thread.load()
                if arch.is_nowhere(thread.registers) and (stat := read_stat(tid)).flags & _PF_USER_WORKER:
                    process.workers.append(f"{tid} ({os.fsdecode(stat.comm)})")
                    continue
                if traps := read_traps(tid):
                    process.traps[tid] = traps
                    disarm(tid, traps)
                self._tracees[tid] = thread
                process.threads.append(thread)
            process.stopped_by = stopped[tids[0]]
        for pid in by_process:
            self._find_children(self.processes[pid])

    def _suspend_seccomp(self, tid: HostTid) -> None:
        try:
            tracee.suspend_seccomp(tid)
        except PermissionError as error:
            raise NotPermitted(
                f"task {tid} ({os.fsdecode(read_stat(tid).comm)}) has seccomp filters, and orch may not suspend them",
                hint="run orch as root, and without a seccomp filter of its own",
            ) from error

    def _wait_for(self, tid: HostTid) -> None:
        try:
            self._stopped[tid] = tracee.wait_held(tid, self._deadline)
        except TimeoutError as error:
            name = os.fsdecode(read_stat(tid).comm)
            raise FreezeTimeout(
                f"task {tid} ({name}) did not stop within {self._timeout:g} s",
                hint="a task that waits in the kernel for a device or a network filesystem stops once that answers",
            ) from error

    def _describe(self, pid: HostPid, status: Status | None = None) -> HeldProcess:
        status = status or read_status(pid)
        process = HeldProcess(pid, read_stat(pid), status, Pid(status.ns_tgid[-1]))
        self.processes[pid] = process
        return process

    def _find_children(self, process: HeldProcess) -> None:
        """Look for children that are not held: the dead belong to the job, the living do not."""
        for thread in process.threads:
            for child in read_children(process.host, thread.tid):
                if child not in self.processes:
                    try:
                        is_zombie = read_stat(child).state == "Z"
                    except (FileNotFoundError, ProcessLookupError):
                        continue
                    if is_zombie:
                        self._describe(HostPid(child))
                    else:
                        self.children_outside.append((process, child))

    def gone(self, error: Exception) -> list[HostTid]:
        """List the held tasks that have been killed, which may be why something failed."""
        deadline = time.monotonic() + (_DYING_WITHIN if isinstance(error, ProcessLookupError) else 0)
        while not (found := [tid for tid in self._seized if _is_dying(tid)]) and time.monotonic() < deadline:
            time.sleep(0.001)  # it does not stand still any more, and has not begun to end yet
        return found

    def release(self, *, stop: bool = False) -> None:
        """Unmap all workspaces and let every task run on as it was; safe to call at any point.

        With ``stop`` every process is left stopped, as by SIGSTOP.
        """
        leaders = {int(process.seen) for process in self.processes.values()}
        traps = {tid: traps for process in self.processes.values() for tid, traps in process.traps.items()}
        drop_workspaces(self.processes.values())
        for tid in self._seized:
            with contextlib.suppress(OSError):
                known = self._tracees.get(tid)
                if known is None:
                    ptrace.detach(tid)
                else:
                    if tid in traps:
                        arm(tid, traps[tid])
                    known.release(signal.SIGSTOP if stop and tid in leaders else 0)
        self._seized.clear()
        self._tracees.clear()
        for process in self.processes.values():
            if process.memory is not None:
                process.memory.close()
                process.memory = None
            if process.pidfd >= 0:
                os.close(process.pidfd)
                process.pidfd = -1

    def kill(self, meanwhile: Callable[[], None] | None = None) -> None:
        """End every process of the job while it is held, so that nothing of it runs again.

        ``meanwhile`` is called as soon as that is certain.
        """
        for process in self.processes.values():
            if not process.is_zombie:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.host, 9)
        try:
            if meanwhile is not None:
                meanwhile()
        finally:
            self._reap()
        self._seized.clear()
        self._tracees.clear()
        self.release()

    def _reap(self) -> None:
        """Wait for the end of every task: it is told to its tracer first.

        In whichever order they come: a leader ends when its other threads are reaped, and in process 1 of a PID
        namespace one thread, no matter which, when everybody else there is. The image is complete by then.
        """
        left = self._seized[::-1]
        pause = 0.00005
        deadline = time.monotonic() + _KILLED_WITHIN
        while left:
            waiting = [tid for tid in left if not _ended(tid)]
            if len(waiting) < len(left):
                deadline = time.monotonic() + _KILLED_WITHIN
            elif time.monotonic() > deadline:
                raise FreezeTimeout(
                    f"the image is complete, but none of these has ended for {_KILLED_WITHIN:g} s, though killed: "
                    + ", ".join(map(whereabouts, waiting)),
                    hint="a task that waits in the kernel for a device or a network filesystem ends once that answers",
                )
            else:
                time.sleep(pause)
                pause = min(2 * pause, 0.005)
            left = waiting


def _is_dying(tid: HostTid) -> bool:
    """Whether a task has begun to end; then it soon has no memory and no files any more."""
    try:
        return bool(read_stat(tid).flags & _PF_EXITING)
    except (FileNotFoundError, ProcessLookupError):
        return True


def _ended(tid: HostTid) -> bool:
    try:
        found, status = os.waitpid(tid, ptrace.WALL | os.WNOHANG)
    except ChildProcessError:  # somebody else's by now
        return True
    return found != 0 and not os.WIFSTOPPED(status)


def whereabouts(tid: HostTid) -> str:
    """Say which task it is, and what it does in the kernel."""
    try:
        stat = read_stat(tid)
        return f"{tid} ({os.fsdecode(stat.comm)}), {standing(stat)}"
    except OSError:
        return f"{tid}"


def _living_threads(pid: int) -> list[int]:
    try:
        return [tid for tid in list_threads(pid) if tid != pid or read_stat(pid).state != "Z"]
    except (FileNotFoundError, ProcessLookupError):
        return []


def descend(root: int) -> Iterator[int]:
    """Yield a process and all below it, zombies too."""
    yield root
    for tid in list_threads(root):
        for child in read_children(root, tid):
            try:
                yield from descend(child)
            except (FileNotFoundError, ProcessLookupError):
                continue
