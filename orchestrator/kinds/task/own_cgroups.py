"""The job's own cgroup and those below it: their types, settings and owners, and which threads are where.

A setting is whatever can be read and written. At a restore it is written again where it is not what a new cgroup has.
See the kernel's admin-guide/cgroup-v2.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from orchestrator.errors import CannotHonour, NoSuchJob
from orchestrator.ids import HostTid
from orchestrator.kinds.task.places import (
    CgroupDirectory,
    CgroupFile,
    Elsewhere,
    apply,
    describe,
    inside_only,
    write_setting,
)
from orchestrator.linux import cgroupfs

_TYPE, _SUBTREE, _THREADED = "cgroup.type", "cgroup.subtree_control", "threaded"
_STATES = frozenset((
    "cgroup.procs", "cgroup.threads", "tasks", "cgroup.freeze", "freezer.state", "cgroup.kill", "memory.reclaim",
    "cpu.weight.nice", _TYPE, _SUBTREE,
))  # fmt: skip
"""Not settings, or set otherwise; cpu.weight.nice is cpu.weight in other words."""
_USUAL = frozenset(("", "max", "0", "100", "default 100", "max 100000", "member", "0.00", "1"))
"""Values that a missing controller need not be asked for."""


_FRESH = {"cgroup.max.depth": "max", "cgroup.max.descendants": "max", "cgroup.pressure": "1", _TYPE: "domain"}
"""What every new cgroup of version 2 has."""
_MODES = frozenset((0o200, 0o444, 0o644))
"""Permissions that the kernel gives to files of cgroups."""


def is_setting(name: str, mode: int) -> bool:
    """Whether a file of a cgroup holds a setting: not a measure that a write resets, nor a trigger."""
    if mode & 0o600 != 0o600 or name in _STATES or name.endswith(".peak"):
        return False
    return not name.endswith(".pressure") or name == "cgroup.pressure"


class OwnCgroups:
    """Describes the cgroups of a job. Make it before the job is frozen; it looks for new ones when that is held.

    Raises NoSuchJob if the job has ended meanwhile.
    """

    def __init__(self, directory: str | None, hierarchy_path: str, hierarchy: str) -> None:
        """``hierarchy``: "" for version 2, or a controller of version 1; ``hierarchy_path``: as /proc shows it."""
        self._top = directory
        self._base = hierarchy_path.rstrip("/")
        self._hierarchy = hierarchy
        self._known: dict[str, CgroupDirectory] = {}
        self._threads: dict[int, str] | None = None
        self._look()

    def _look(self) -> list[str]:
        try:
            found = cgroupfs.walk(self._top) if self._top is not None else []
        except FileNotFoundError as error:
            raise NoSuchJob(f"the cgroup {self._top} is gone") from error
        for directory in found:
            if directory not in self._known:
                with contextlib.suppress(FileNotFoundError):
                    path = os.path.relpath(directory, self._top)
                    place = "" if path == "." else path
                    whole = describe(directory, self._hierarchy, place, is_setting)
                    files = [file for file in whole.files if not _is_fresh(file)]
                    self._known[directory] = msgspec.structs.replace(whole, files=files)
        for gone in self._known.keys() - {*found}:
            del self._known[gone]
        return found

    @property
    def asks(self) -> bool:
        """Whether it needs to know the cgroups of processes."""
        return bool(self._base)

    def of_process(self, places: dict[str, str]) -> str:
        """Return where a process is, from the job's cgroup on. ``places``: as /proc shows them."""
        path = next((path for name, path in places.items() if self._hierarchy in name.split(",")), "")
        inside = self._base and (path == self._base or path.startswith(f"{self._base}/"))
        return path[len(self._base) :].strip("/") if inside else ""

    def of_thread(self, tid: int, of_process: str) -> str | None:
        """Return where a thread of the held job is, if not where its process is."""
        if self._threads is None:
            self._threads = {}
            directories = self._look()
            known = [self._known[directory] for directory in directories]
            may_part = len(known) > 1 and (self._hierarchy or any(_type(one) == _THREADED for one in known))
            for directory, one in zip(directories, known, strict=True) if may_part else ():
                with contextlib.suppress(OSError):
                    self._threads |= dict.fromkeys(cgroupfs.read_threads(directory), one.path)
        found = self._threads.get(tid, of_process)
        return found if found != of_process else None

    def directories(self) -> list[CgroupDirectory]:
        """Describe all, parents first."""
        return [self._known[directory] for directory in self._look()]


def _is_fresh(file: CgroupFile) -> bool:
    """Whether a file is what it is in every new cgroup: a restore need not look at it."""
    if (file.uid, file.gid) != (0, 0) or file.mode not in _MODES:
        return False
    return file.value is None or file.value.strip() == _FRESH.get(file.name, "")


def _value(of: CgroupDirectory, name: str) -> str:
    return next((file.value or "" for file in of.files if file.name == name), "").strip()


def _type(of: CgroupDirectory) -> str:
    return _value(of, _TYPE)


class JobCgroups(NamedTuple):
    """All about the cgroups that a job is in."""

    own: OwnCgroups
    elsewhere: Elsewhere


class OwnCgroupMaker:
    """Makes the cgroups of an image again below that of the restored job."""

    def __init__(self, top: str | None, wanted: Sequence[CgroupDirectory]) -> None:
        self._top = top
        self._wanted = wanted if top is not None else ()

    def make(self) -> None:
        """Make those below the job's own, and say which are threaded: a process can only then be put there."""
        for one in self._wanted:
            directory = self._directory(one.path)
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory)
            if _type(one) == _THREADED and os.path.exists(f"{directory}/{_TYPE}"):
                write_setting(f"{directory}/{_TYPE}", _THREADED)

    def put(self, path: str, tid: HostTid, *, alone: bool) -> None:
        """Move a process there, or with ``alone`` a thread."""
        directory = self._directory(path)
        file = "cgroup.threads" if os.path.exists(f"{directory}/cgroup.threads") else "tasks"
        write_setting(f"{directory}/{file if alone else 'cgroup.procs'}", str(tid))

    def settle(self) -> None:
        """Set controllers, limits and owners, when all are in their places: parents first."""
        for one in self._wanted:
            directory = self._directory(one.path)
            if not one.path:
                _ask_for(os.path.dirname(directory), [file for file in one.files if _is_special(directory, file)])
            for file in one.files:
                if file.name not in (_TYPE, _SUBTREE) and _is_special(directory, file):
                    raise CannotHonour(
                        f"the job's cgroup had {file.name} set to {(file.value or '').strip()!r}, "
                        "and the controller for that is not at hand",
                        hint=f"enable it in cgroup.subtree_control of {os.path.dirname(directory)}",
                    )
            apply(directory, one)
            if missing := {*_value(one, _SUBTREE).split()} - {*_read_words(f"{directory}/{_SUBTREE}")}:
                write_setting(f"{directory}/{_SUBTREE}", " ".join(f"+{word}" for word in sorted(missing)))

    def _directory(self, path: str) -> str:
        assert self._top is not None
        return os.path.normpath(f"{self._top}/{inside_only(path)}")


def _is_special(directory: str, file: CgroupFile) -> bool:
    """Whether a setting that matters has no file here."""
    value = (file.value or "").strip()
    return value not in _USUAL and not os.path.exists(f"{directory}/{os.path.basename(file.name)}")


def _ask_for(parent: str, missing: Sequence[CgroupFile]) -> None:
    """Enable the controllers of missing files in the cgroup that orch's jobs are in."""
    for controller in {file.name.split(".")[0] for file in missing}:
        if controller in _read_words(f"{parent}/cgroup.controllers"):
            with contextlib.suppress(CannotHonour):  # settle says what is missing
                write_setting(f"{parent}/{_SUBTREE}", f"+{controller}")


def _read_words(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().split()
    except OSError:
        return []
