"""Take the numbers that a job's pseudo-terminals had in the devpts that it shares with the machine.

A new pseudo-terminal has the lowest number that is free. So masters are opened until all that are wanted are among
them, and the others are closed again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.errors import ResourceTaken
from orchestrator.kinds.files.kind import OpenFile
from orchestrator.kinds.files.reopening import open_flags
from orchestrator.kinds.terminals.ends import claim_key
from orchestrator.kinds.terminals.records import MasterEnd, Terminal
from orchestrator.linux import tty

_PATIENCE = 1.0
"""Seconds for the kernel to give back the numbers of terminals that were just closed."""


def wanted_masters(files: Sequence[OpenFile], objects: Sequence[Any]) -> dict[str, tuple[OpenFile, Terminal]]:
    """Return, by their keys, the masters that must have a certain number in the machine's devpts."""
    found = {}
    for file in files:
        if isinstance(file.body, MasterEnd):
            terminal: Terminal = objects[file.body.object]
            if not terminal.own:
                found[claim_key(terminal)] = file, terminal
    return found


def claim_masters(files: Sequence[OpenFile], objects: Sequence[Any]) -> dict[str, int]:
    """Open them, each with its flags; return our descriptors by key. Raises ResourceTaken, and leaves none open."""
    wanted = wanted_masters(files, objects)
    claimed: dict[str, int] = {}
    until = time.monotonic() + _PATIENCE
    try:
        while missing := {key: one for key, one in wanted.items() if key not in claimed}:
            _claim(missing, claimed)
            taken = [terminal for key, (_, terminal) in missing.items() if key not in claimed]
            if taken and time.monotonic() > until:
                names = ", ".join(f"{terminal.devpts}/{terminal.number}" for terminal in taken)
                raise ResourceTaken(
                    f"somebody else has {names}, the name of a terminal of the job",
                    hint="restore when it is free, or where it is; a job with a devpts of its own never has to wait",
                )
            if taken:
                time.sleep(0.02)
    except BaseException:
        for fd in claimed.values():
            os.close(fd)
        raise
    return claimed


def _claim(missing: Mapping[str, tuple[OpenFile, Terminal]], claimed: dict[str, int]) -> None:
    """Open masters until all that are missing were met or passed by; keep those."""
    for (devpts, path, flags), group in _alike(missing).items():
        others: list[int] = []
        try:
            while left := {terminal.number for terminal in group.values()} - _numbers(group, claimed):
                fd = _open(path, devpts, flags)
                if fd is None:
                    break
                number = tty.number(fd)
                key = next((key for key, terminal in group.items() if terminal.number == number), None)
                if key is None:
                    others.append(fd)
                else:
                    claimed[key] = fd
                if number > max(left):
                    break
        finally:
            for fd in others:
                os.close(fd)


def _numbers(group: Mapping[str, Terminal], claimed: Mapping[str, int]) -> set[int]:
    return {terminal.number for key, terminal in group.items() if key in claimed}


def _alike(missing: Mapping[str, tuple[OpenFile, Terminal]]) -> dict[tuple[str, str, int], dict[str, Terminal]]:
    groups: dict[tuple[str, str, int], dict[str, Terminal]] = {}
    for key, (file, terminal) in missing.items():
        groups.setdefault((terminal.devpts, file.body.path, open_flags(file.flags)), {})[key] = terminal
    return groups


def _open(path: str, devpts: str, flags: int) -> int | None:
    """Open a master by the name that the job had used, or by that which every devpts has."""
    for name in (path, f"{devpts}/ptmx"):
        try:
            return os.open(name, flags)
        except FileNotFoundError:
            continue
        except OSError:  # there are as many as there may be
            return None
    return None
