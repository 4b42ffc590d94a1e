"""Settings under /proc/sys that belong to a namespace: to that of the task at the file, whatever /proc it is in."""

from __future__ import annotations

import os
from collections.abc import Iterable

from orchestrator.linux.procfs import read_record
from orchestrator.tape.build import Tape

_AT_FDCWD = -100


def read_sysctls(paths: Iterable[str]) -> dict[str, str]:
    """Read settings of our own namespaces; one that this kernel lacks is left out."""
    values = {}
    for path in paths:
        try:
            values[path] = read_record(path).decode().rstrip("\n")
        except FileNotFoundError:
            continue
    return values


def write_sysctl(tape: Tape, path: str, value: str, *, may_fail: bool = False) -> None:
    """Write the tape entries that set one. Descriptor 0 must be free, as whenever a kind's entries are played."""
    content = value.encode() + b"\n"
    tape.openat(_AT_FDCWD, path, os.O_WRONLY | os.O_CLOEXEC, 0, may_fail=may_fail)
    tape.write(0, content, len(content), may_fail=may_fail)
    tape.close(0, may_fail=may_fail)
