"""Describe the namespaces of real processes, and play what makes them again in others."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from harness.replay import PAGES_AT, Process, Target, new_scope
from orchestrator.ids import DepotFd
from orchestrator.kinds.files.kind import Depot
from orchestrator.kinds.files.slots import Slots
from orchestrator.kinds.memory.sysv import SysvSegment
from orchestrator.kinds.scope import Scope
from orchestrator.namespaces.registry import NAMESPACE_KINDS, AnyNamespace
from orchestrator.namespaces.survey import survey
from orchestrator.tape.build import Tape

libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
libc.shmat.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]


def ok(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


@contextlib.contextmanager
def process(setup: Callable[[], object]) -> Iterator[Process]:
    made = Process(setup)
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def target(setup: Callable[[], object] = lambda: None) -> Iterator[Target]:
    made = Target(Process(setup))
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def surveyed(*processes: Process) -> Iterator[tuple[Scope, dict[str, AnyNamespace]]]:
    """Survey processes, and take the records through the image's encoding."""
    pids = [process.pid for process in processes]
    scope = new_scope(pids)
    try:
        found = survey(pids, scope)
        for finish in scope.finishers:
            finish()
        decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=list[AnyNamespace])
        yield scope, {namespace.kind: namespace for namespace in decoded}
    finally:
        scope.close()


def described(process: Process, kind: str) -> Any:
    """Survey one process whose one private namespace can be rebuilt."""
    with surveyed(process) as (scope, found):
        scope.blockers.raise_if_any()
        assert [name for name, namespace in found.items() if namespace.private] == [kind]
        return found[kind].body


def rebuilt(kind: str, record: Any) -> Tape:
    tape = Tape(kind)
    rebuild = NAMESPACE_KINDS[kind].rebuild
    assert rebuild is not None
    rebuild(record, tape)
    return tape


def store(scope: Scope, path: Path) -> None:
    """Write what a scope has planned to copy, as an image file does."""
    with path.open("wb") as file:
        file.truncate(PAGES_AT + scope.layout.length)
        for copy in scope.copies:
            for extent in copy.extents:
                data = os.pread(copy.fd, extent.length, extent.start)
                assert len(data) == extent.length
                os.pwrite(file.fileno(), data, PAGES_AT + extent.at)


def depot_of(scope: Scope, path: Path, target: Target) -> Depot:
    """Open the image in a target, at a high number."""
    tape = Tape("image")
    tape.openat(-100, str(path), os.O_RDONLY, 0)
    tape.dup3(0, 900, 0)
    tape.close(0)
    target.play(tape)
    objects = msgspec.msgpack.decode(msgspec.msgpack.encode(scope.objects), type=list[SysvSegment])
    return Depot(Tape("depot"), Slots((), (), lowest=1000), DepotFd(900), PAGES_AT, {}, objects)


MS_REC, MS_PRIVATE, MS_SHARED, MS_BIND, MS_REMOUNT, MS_RDONLY = 1 << 14, 1 << 18, 1 << 20, 4096, 32, 1


def mount(source: str, at: Path | str, kind: str = "", flags: int = 0, data: str = "") -> None:
    ok(libc.mount(source.encode(), str(at).encode(), kind.encode(), flags, data.encode() or None))
