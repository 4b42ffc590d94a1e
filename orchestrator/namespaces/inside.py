"""Look at a held process's namespaces from within: a short-lived child of orch enters them.

Nothing is pickled: the child's answer is msgpack, decoded as the type that the caller expects.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, NoReturn, TypeVar

import msgspec

from orchestrator import errors
from orchestrator.ids import HostPid
from orchestrator.linux import nsfs
from orchestrator.linux.pidfd import kill_and_reap, open_task

T = TypeVar("T")
_SECONDS = 20.0
_DIES_WITHIN = 2.0


class _Answer(msgspec.Struct, array_like=True):
    value: msgspec.Raw = msgspec.Raw()
    error: str = ""
    """The name of an exception class; empty if all went well."""
    text: str = ""
    errno: int = 0
    notes: list[str] = []


class Visit(msgspec.Struct, Generic[T], frozen=True):
    """A child of orch that stands in the namespaces of another process."""

    pid: HostPid
    value: T
    """What the function returned."""


@contextlib.contextmanager
def visit(
    pid: HostPid, kinds: Sequence[str], function: Callable[[], T], kind: type[T] | Any, *, timeout: float = _SECONDS
) -> Iterator[Visit[T]]:
    """Run ``function`` in the namespaces ``kinds`` ("mnt", "ipc"...) of ``pid``; its child stays until the block ends.

    An OSError or an error of orch's is raised here as it was raised there; anything else as RuntimeError;
    TimeoutError after ``timeout`` seconds. "pid" moves the child's own children only.
    """
    flags = 0
    for name in kinds:
        flags |= nsfs.TYPES[name]
    target = open_task(pid)
    try:
        answer_read, answer_write = os.pipe()
        stay_read, stay_write = os.pipe()
        child = _fork()
        if child == 0:
            os.close(answer_read)
            os.close(stay_write)
            _be_visitor(target, flags, function, answer_write, stay_read)
    finally:
        os.close(target)
    os.close(answer_write)
    os.close(stay_read)
    try:
        answer = _receive(answer_read, timeout)
        yield Visit(HostPid(child), _interpret(answer, kind))
    finally:
        os.close(answer_read)
        os.close(stay_write)
        kill_and_reap(child, _DIES_WITHIN)  # one that a file system holds up ends later


def inside(
    pid: HostPid, kinds: Sequence[str], function: Callable[[], T], kind: type[T] | Any, *, timeout: float = _SECONDS
) -> T:
    """Return what ``function`` returns in the namespaces ``kinds`` of ``pid``. See :func:`visit`."""
    with visit(pid, kinds, function, kind, timeout=timeout) as answer:
        value: T = answer.value
        return value


def _fork() -> int:
    with warnings.catch_warnings():
        # Python 3.12 warns of forks beside threads; this child takes no lock that another thread could hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _be_visitor(target: int, flags: int, function: Callable[[], Any], answer_to: int, stay: int) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        for signo in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(signo, signal.SIG_DFL)
        os.close(0)
        os.dup2(stay, 0)
        try:
            if flags:
                nsfs.setns(target, flags)
            answer = _Answer(msgspec.Raw(msgspec.msgpack.encode(function())))
        except OSError as error:
            notes = list(getattr(error, "__notes__", ()))
            answer = _Answer(msgspec.Raw(b"\xc0"), "OSError", error.strerror or "", error.errno or 0, notes)
        except BaseException as error:  # noqa: BLE001 - it travels to the parent, whatever it is
            answer = _Answer(msgspec.Raw(b"\xc0"), type(error).__name__, str(error))
        data = msgspec.msgpack.encode(answer)
        view = memoryview(len(data).to_bytes(8, "little") + data)
        while view:
            view = view[os.write(answer_to, view) :]
        os.read(stay, 1)
    finally:
        os._exit(0)


def _receive(fd: int, timeout: float) -> bytes:
    until = time.monotonic() + timeout
    data = bytearray()
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while len(data) < 8 or len(data) < 8 + int.from_bytes(data[:8], "little"):
        left = until - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise TimeoutError(f"no answer from inside the namespaces within {timeout} s")
        part = os.read(fd, 1 << 20)
        if not part:
            raise RuntimeError("the process sent into the namespaces died there")
        data += part
    return bytes(data[8:])


def _interpret(data: bytes, kind: Any) -> Any:
    answer = msgspec.msgpack.decode(data, type=_Answer)
    if not answer.error:
        return msgspec.msgpack.decode(answer.value, type=kind)
    if answer.error == "OSError":
        error = OSError(answer.errno, answer.text)
        for note in answer.notes:
            error.add_note(note)
        raise error
    known = getattr(errors, answer.error, None)
    if isinstance(known, type) and issubclass(known, errors.OrchError) and not issubclass(known, errors.Blocked):
        raise known(answer.text)
    raise RuntimeError(f"{answer.error} inside the namespaces: {answer.text}")
