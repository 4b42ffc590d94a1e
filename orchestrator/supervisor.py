"""Stand by a job as its parent: reap, pass signals on, end as its root ends."""

from __future__ import annotations

import os
import resource
import selectors
import signal
import time
from collections.abc import Callable
from typing import NoReturn, Self

import msgspec
import prctl

from orchestrator.claim import Claim
from orchestrator.errors import PagesLost
from orchestrator.freezer import make_freezer
from orchestrator.job import Birth, JobRecord, Stream, directory_of, note_failure, read_failure
from orchestrator.kill import KILL_SECONDS, empty_cgroup, signal_root
from orchestrator.linux.pidfd import pidfd_open
from orchestrator.linux.procfs import read_file
from orchestrator.linux.signalfd import read_signals, signalfd
from orchestrator.paging.inquiry import ALL_KILLED, is_forsaken
from orchestrator.relay import Relay
from orchestrator.spawn import Program, spawn

FORWARDED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)
_WALL = 0x40000000


class Root(msgspec.Struct, frozen=True):
    """The process that a job stands and falls with."""

    child: int
    """Our own child whose end tells the root's: the root itself, or the init of its PID namespace."""
    target: int
    """Who gets the signals: the root, as our PID namespace sees it."""
    status: Callable[[int], int] | None = None
    """From the wait status of ``child`` to that of the root; None where they are the same process."""


class Supervisor:
    """The parent of a job and of its orphans. Enter it before the job's first process is made."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self._mask: set[int] | None = None
        self._signals = -1
        self._foreign: set[int] = set()
        self._was_subreaper = False
        self._meant: int | None = None
        self.relay: Relay | None = None
        """What connects the job's terminal to ours, if it has one."""

    def __enter__(self) -> Self:
        self._foreign = _children()
        self._was_subreaper = bool(prctl.get_child_subreaper())
        prctl.set_child_subreaper(1)
        return self

    def __exit__(self, *_: object) -> None:
        if self._signals >= 0:
            os.close(self._signals)
            self._signals = -1
        if self.relay is not None:
            self.relay.close()
            self.relay = None
        prctl.set_child_subreaper(int(self._was_subreaper))
        if self._mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            self._mask = None

    def hold_signals(self) -> set[int]:
        """Keep the signals that are passed on until there is a root to get them; return the mask from before."""
        if self._mask is None:
            self._mask = {*signal.pthread_sigmask(signal.SIG_BLOCK, {*FORWARDED, signal.SIGCHLD})}
            self._signals = signalfd({*FORWARDED, signal.SIGCHLD})
        return self._mask

    def start(self, program: Program) -> Root:
        """Start a job's first process and make the job known."""
        root = spawn(program, self.claim.cgroup, self.hold_signals())
        try:
            self.publish(
                Root(root, root),
                argv=program.argv,
                new=program.new,
                streams=(program.stdin, program.stdout, program.stderr),
            )
        except BaseException:
            os.kill(root, signal.SIGKILL)
            os.waitpid(root, 0)
            raise
        return Root(root, root)

    def publish(
        self,
        root: Root,
        *,
        argv: tuple[str, ...],
        new: frozenset[str] = frozenset(),
        streams: tuple[int, ...] = (0, 1, 2),
        restored_from: str | None = None,
    ) -> None:
        """Make a job known: under its name others can list, checkpoint and kill it."""
        stdin, stdout, stderr = streams
        self.claim.publish(
            JobRecord(
                name=self.claim.name,
                cgroup=self.claim.cgroup.path,
                cgroup_version=self.claim.cgroup.version,
                created=time.time(),
                argv=argv,
                supervisor=Birth.of(os.getpid()),
                root=_birth(root.target),
                streams=(Stream.of(stdin), Stream.of(stdout), Stream.of(stderr)),
                new=tuple(sorted(new)),
                restored_from=restored_from,
            )
        )

    def wait(self, root: Root) -> int:
        """Stand by the job until its last process has ended, and clear away; return the root's wait status.

        Signals reach the root, and once it has ended every process that it has left behind. Raises PagesLost.
        """
        self.hold_signals()
        status: int | None = None
        with selectors.DefaultSelector() as selector:
            selector.register(self._signals, selectors.EVENT_READ)
            child = pidfd_open(root.child)
            target = _open_root(root.target)
            try:
                # A child that was cloned to signal nobody is seen to end by its descriptor alone.
                selector.register(child, selectors.EVENT_READ)
                if self.relay is not None:
                    self.relay.begin(selector)
                while True:
                    ended = self._reap(root.child)
                    if is_forsaken(self._directory):
                        note_failure(self._directory, ALL_KILLED)
                        empty_cgroup(self.claim.cgroup, KILL_SECONDS)
                    if ended is not None:
                        status = root.status(ended) if root.status is not None else ended
                        selector.unregister(child)
                        if target is not None:
                            os.close(target)
                            target = None
                    if status is not None and not _children() - self._foreign:
                        break
                    ready = selector.select()
                    for info in read_signals(self._signals):
                        if info.ssi_signo == signal.SIGWINCH and self.relay is not None:
                            self.relay.resize()
                        elif info.ssi_signo != signal.SIGCHLD:
                            self._pass_on(signal.Signals(info.ssi_signo), root.target, target)
                    if self.relay is not None:
                        for key, events in ready:
                            self.relay.carry(key.fd, events)
            finally:
                os.close(child)
                if target is not None:
                    os.close(target)
        why = read_failure(self._directory)
        self.claim.release()
        if why is not None:
            raise PagesLost(f"the job was killed: memory that it was restored without did not come: {why}")
        if self._meant is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            return self._meant
        return status

    @property
    def _directory(self) -> str:
        return directory_of(self.claim.name)

    def _reap(self, child: int) -> int | None:
        """Reap all that has ended; return the wait status of ``child`` if it is among them."""
        status = None
        while True:
            try:
                pid, ended = os.waitpid(-1, os.WNOHANG | _WALL)
            except ChildProcessError:
                return status
            if pid == 0:
                return status
            if pid == child:
                status = ended

    def _pass_on(self, signo: signal.Signals, pid: int, target: int | None) -> None:
        try:
            if target is not None:
                if signal_root(target, pid, signo) != signo:
                    self._meant = signo
            else:
                for left in make_freezer(self.claim.cgroup).tasks():
                    os.kill(left, signo)
        except ProcessLookupError:
            return


def _birth(pid: int) -> Birth:
    try:
        return Birth.of(pid)
    except (FileNotFoundError, ProcessLookupError):
        # A restored root that has ended at once; the init of its namespace has reaped it.
        return Birth(pid, 0)


def _open_root(pid: int) -> int | None:
    try:
        return pidfd_open(pid)
    except ProcessLookupError:
        return None


def _children() -> set[int]:
    """List our children, zombies too."""
    children: set[int] = set()
    for tid in os.listdir("/proc/self/task"):
        children.update(map(int, read_file(f"/proc/self/task/{tid}/children").split()))
    return children


def end_like(status: int) -> NoReturn:
    """End this process as another has ended: with its exit code, or of its signal."""
    if os.WIFSIGNALED(status):
        signo = os.WTERMSIG(status)
        # The job has left a core if one was wanted; ours would only overwrite it.
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        if signo not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(signo, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signo})
        os.kill(os.getpid(), signo)
        os._exit(128 + signo)
    os._exit(os.waitstatus_to_exitcode(status))
