"""Descriptors of namespaces: the job's own, and those that orch is in. See namespaces(7)."""

from __future__ import annotations

import os
import re

from orchestrator.kinds.files.kind import Depot, FdView, FileKind, OpenFile
from orchestrator.kinds.files.reopening import AT_FDCWD, open_flags, reopen
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.linux.nsfs import TYPES

_LINK = re.compile(r"(\w+):\[(\d+)\]")


class NamespaceFile(Record, frozen=True, tag="namespace-file"):
    """An open file description of a namespace."""

    kind: str
    """"net", "mnt"..."""
    own: bool
    """Whether it is the job's, not just that of orch."""


def _recognise(view: FdView) -> bool:
    found = _LINK.fullmatch(view.link)
    return found is not None and found[1] in TYPES


def _capture(view: FdView, scope: Scope) -> NamespaceFile | None:
    kind = view.link.partition(":")[0]
    status = view.stat
    for own, pid in ((True, view.pid), (False, os.getpid())):
        theirs = os.stat(f"/proc/{pid}/ns/{kind}")
        if (theirs.st_dev, theirs.st_ino) == (status.st_dev, status.st_ino):
            return NamespaceFile(kind, own)
    scope.unsupported(view.pid, view.what, "it is a namespace that neither the job nor orch is in")
    return None


def outer_key(kind: str) -> str:
    """Name, among what a restore inherits, the namespace of orch."""
    return f"namespace[{kind}]"


def wanted_outer(files: list[OpenFile]) -> dict[str, str]:
    """Return those namespaces of our own that descriptors of the job are of: :func:`outer_key` to path."""
    bodies = [file.body for file in files if isinstance(file.body, NamespaceFile) and not file.body.own]
    return {outer_key(body.kind): f"/proc/self/ns/{body.kind}" for body in bodies}


def outer_namespaces(files: list[OpenFile]) -> dict[str, int]:
    """Open them."""
    return {key: os.open(path, os.O_RDONLY | os.O_CLOEXEC) for key, path in wanted_outer(files).items()}


def _rebuild(file: OpenFile, depot: Depot) -> None:
    body: NamespaceFile = file.body
    if body.own:
        depot.tape.openat(AT_FDCWD, f"{depot.proc}/self/ns/{body.kind}", open_flags(file.flags), 0)
        depot.keep(0, depot.slot(file.id))
    else:
        reopen(depot, depot.inherited[outer_key(body.kind)], file)


KIND = FileKind("namespace", NamespaceFile, _recognise, _capture, _rebuild)
