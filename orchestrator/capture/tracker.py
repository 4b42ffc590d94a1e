"""Between checkpoints: hand the userfaultfds of a job to a warden, and take them from it again.

One warden a job, on a socket below /run/orch. Whoever has taken over from it has the listening socket, too: a second
orch that asks meanwhile waits until the first has left another warden, or has ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Iterator
from uuid import UUID

import msgspec

from orchestrator.capture import warden
from orchestrator.capture.tracking import Watch
from orchestrator.errors import JobBusy
from orchestrator.ids import HostPid, ObjectId
from orchestrator.linux.pidfd import pidfd_open
from orchestrator.linux.proc_stat import read_stat

DIRECTORY = "/run/orch/.trackers"


class _Facts(msgspec.Struct, frozen=True):
    image: UUID | None
    path: str
    watches: list[tuple[int, int, int]]
    """Process id, start time and number of the address space in the image."""


class Tracker(msgspec.Struct):
    """What is noted of a job's writes, while we have it."""

    key: str
    image: UUID | None = None
    """The image that the memory was armed for."""
    path: str = ""
    """Where that is."""
    watches: list[Watch] = msgspec.field(default_factory=list)
    listener: socket.socket | None = None

    def leave(self) -> bool:
        """Leave all to a warden, which ends with the job; say whether there is one now.

        End the tracking if there is nothing to be left, or the machine allows no warden.
        """
        pidfds: list[int] = []
        try:
            return self._leave(pidfds)
        except OSError:
            return False
        finally:
            for fd in pidfds:
                os.close(fd)
            self.close()

    def _leave(self, pidfds: list[int]) -> bool:
        alive: list[Watch] = []
        for watch in self.watches:
            with contextlib.suppress(OSError):
                pidfds.append(pidfd_open(watch.pid))
                if read_stat(watch.pid).starttime == watch.starttime:
                    alive.append(watch)
                    continue
                os.close(pidfds.pop())
        if alive:
            self._listen()
            assert self.listener is not None
            facts = _Facts(self.image, self.path, [(w.pid, w.starttime, w.memory) for w in alive])
            _start(_path(self.key), msgspec.json.encode(facts), self.listener, [w.uffd for w in alive], pidfds)
        elif self.listener is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_path(self.key))
        return bool(alive)

    def forget(self) -> None:
        """Let nothing be noted any more; the name is still ours."""
        while self.watches:
            os.close(self.watches.pop().uffd)

    def close(self) -> None:
        """Let go: without a warden nothing is noted any more."""
        for watch in self.watches:
            os.close(watch.uffd)
        self.watches = []
        if self.listener is not None:
            self.listener.close()
            self.listener = None

    def _listen(self) -> None:
        if self.listener is not None:
            return
        with _directory():
            _clear_stale()
            self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.listener.bind(_path(self.key))
            self.listener.listen(8)


def key_of(what: str) -> str:
    """Return the name by which a job's warden is found, from what names the job for certain."""
    import xxhash  # here, as in image/checksums.py

    return xxhash.xxh3_128_hexdigest(what.encode(errors="surrogateescape"))


def take_over(key: str, timeout: float) -> Tracker:
    """Take what a job's warden has; nothing if there is none. Raises JobBusy while another orch has it."""
    tracker = Tracker(key)
    with contextlib.suppress(OSError, EOFError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(timeout)
        try:
            try:
                peer.connect(_path(key))
            except ConnectionRefusedError:
                with _directory():
                    _clear_stale()
                return tracker
            if not warden.is_root(peer):
                return tracker
            content, fds = warden.take(peer)
            tracker.listener = socket.socket(fileno=fds[0])
            peer.sendall(warden.TAKEN)
            peer.recv(1)  # until the warden has let go
        except TimeoutError as error:
            raise JobBusy("another orch is at work on this job", hint="try again when it is done") from error
        try:
            facts = msgspec.json.decode(content, type=_Facts)
        except msgspec.MsgspecError:  # of another version
            for fd in fds[1:]:
                os.close(fd)
            return tracker
        tracker.image, tracker.path = facts.image, facts.path
        tracker.watches = [
            Watch(HostPid(pid), starttime, ObjectId(memory), uffd)
            for (pid, starttime, memory), uffd in zip(facts.watches, fds[1:], strict=True)
        ]
    return tracker


def _path(key: str) -> str:
    return f"{DIRECTORY}/{key}"


@contextlib.contextmanager
def _directory() -> Iterator[None]:
    """Have the directory, and be alone in it."""
    os.makedirs(DIRECTORY, mode=0o700, exist_ok=True)
    fd = os.open(DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _clear_stale() -> None:
    """Remove what wardens that were killed have left; nobody but us is in the directory."""
    for name in os.listdir(DIRECTORY):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(_path(name))  # a warden that lives finds that nobody takes over
            except ConnectionRefusedError:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(_path(name))
            except OSError:
                continue


def _start(path: str, facts: bytes, listener: socket.socket, uffds: list[int], pidfds: list[int]) -> None:
    """Start the warden; it does not depend on us."""
    ours, theirs = socket.socketpair()
    null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    with ours, theirs:
        other = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, warden.SOURCE + 1)
        try:
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", warden.__file__, path],
                {},
                file_actions=[*null, (os.POSIX_SPAWN_DUP2, other, warden.SOURCE)],
                setsigmask=[],
                setsigdef=[s for s in signal.Signals if s not in (signal.SIGKILL, signal.SIGSTOP)],
            )
        finally:
            os.close(other)
        theirs.close()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            warden.give(ours, facts, [listener.fileno(), *uffds, *pidfds])
        os.waitpid(pid, 0)
