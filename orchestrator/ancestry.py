"""Which image a checkpoint is a delta to, what its own is called, and whether the job's writes are followed."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from uuid import UUID

import msgspec

from orchestrator.capture.deltas import Deltas
from orchestrator.capture.parent import Parent
from orchestrator.capture.tracker import Tracker, key_of, take_over
from orchestrator.errors import ImageInUse, ImageMissing, UsageError
from orchestrator.image.chain import dependants, is_packed
from orchestrator.image.spool import STANDARD
from orchestrator.kinds.files.io_uring import IO_URING
from orchestrator.kinds.memory.aio import AIO
from orchestrator.linux.proc_stat import read_stat
from orchestrator.target import Target

LAST = "last"
"""How the newest image of a job is called."""
_NUMBERED = re.compile(r"(?P<stem>.*?)(?:\.(?P<number>\d+))?\.ckpt")


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for."""

    output: str | None = None
    parent: str | None = None
    track: bool = False
    ends: bool = False
    """Whether the job does."""
    packed: bool = False
    """Whether it is to be compressed or encrypted."""
    externals: frozenset[str] = frozenset()
    timeout: float = 10.0


class Plan(msgspec.Struct, frozen=True):
    """What comes of it."""

    output: str
    deltas: Deltas

    @property
    def parent_id(self) -> UUID | None:
        """The id of the image that this one is a delta to."""
        return None if self.deltas.parent is None else self.deltas.parent.id

    @property
    def parent_path(self) -> str:
        """Where it is; "" without one."""
        return "" if self.deltas.parent is None else self.deltas.parent.image.path


@contextlib.contextmanager
def planned(target: Target, wanted: Wanted) -> Iterator[Plan]:
    """Say what a checkpoint of a target is to be, and take what was noted of its writes.

    Raises UsageError, ImageInUse, JobBusy, and whatever is wrong with the parent.
    """
    _refuse_streams(wanted)
    may_watch = not {AIO, IO_URING} & wanted.externals  # else there may be memory that devices write to, unnoted
    tracker = take_over(_key(target), wanted.timeout)
    try:
        if not may_watch:
            tracker.forget()
        parent_path = _parent_path(target, wanted.parent, tracker)
        output = wanted.output if wanted.output is not None else _default_output(target, parent_path)
        with contextlib.ExitStack() as closing:
            parent = None
            if parent_path is not None:
                parent = Parent.open(parent_path)
                closing.callback(parent.close)
                _refuse_other_directory(output, parent_path)
            refuse_in_use(output, parent)
            can_arm = may_watch and not wanted.ends and not _is_stream(output, wanted)
            asked = wanted.track or wanted.parent is not None or bool(tracker.watches)
            yield Plan(output, Deltas(tracker, parent, may_watch, arm=can_arm and asked))
    finally:
        tracker.leave()


def _key(target: Target) -> str:
    if target.cgroup is not None:
        return key_of(f"cgroup {target.cgroup.version} {target.cgroup.path}")
    assert target.tree is not None
    return key_of(f"process {target.tree} {read_stat(target.tree).starttime}")


def _is_stream(output: str, wanted: Wanted) -> bool:
    return output == STANDARD or wanted.packed


def _refuse_streams(wanted: Wanted) -> None:
    if wanted.parent is None and not wanted.track:
        return
    option = "--parent" if wanted.parent is not None else "--track"
    if wanted.output == STANDARD:
        raise UsageError(
            f"checkpoint: {option} needs an image with a name, not the output",
            hint="a delta is found by its file name, beside the images that it refers to",
        )
    if wanted.packed:
        raise UsageError(
            f"checkpoint: {option} goes together with neither --compress nor --encrypt",
            hint="the images of a chain refer to each other's pages, so all of them must be plain files",
        )


def _parent_path(target: Target, wanted: str | None, tracker: Tracker) -> str | None:
    """Return the path of the parent; None if there is none, or no earlier image for "last"."""
    if wanted is None:
        return None
    path: str | None = wanted
    if wanted == LAST:
        path = _last(target, tracker)
        if path is None:
            return None
    assert path is not None
    if not os.path.exists(path):
        raise ImageMissing(f"there is no image {path}", hint="'--parent last' is the newest image of the job")
    if is_packed(path):
        raise UsageError(
            f"{path} is compressed or encrypted: it cannot be the parent of a delta", hint="write a plain one first"
        )
    return path


def _last(target: Target, tracker: Tracker) -> str | None:
    """Return the path of a job's newest image, or of the one that it was restored from, if it is there."""
    if target.job is None:
        path: str | None = tracker.path
    elif notes := target.job.images():
        path = notes[-1].path
    else:
        path = target.job.record.restored_from
        if path is not None and is_packed(path):
            return None
    return path if path and os.path.isfile(path) else None


def _default_output(target: Target, parent: str | None) -> str:
    """Return the target's name, or that of its parent with the next number that is free."""
    if parent is None:
        return target.default_image
    found = _NUMBERED.fullmatch(os.path.basename(parent))
    stem, number = (found["stem"], int(found["number"] or 0)) if found else (target.name, 0)
    while True:
        number += 1
        path = os.path.join(os.path.dirname(parent), f"{stem}.{number}.ckpt")
        if not os.path.lexists(path):
            return path


def _refuse_other_directory(output: str, parent: str) -> None:
    """Raise UsageError unless the image will be in the directory of its parent."""
    theirs = os.path.dirname(os.path.realpath(parent))
    if os.path.realpath(os.path.dirname(output) or os.curdir) != theirs:
        raise UsageError(
            f"checkpoint: {output} is not beside its parent {parent}",
            hint=f"write it to {theirs}: the images of a chain are found in one directory",
        )


def refuse_in_use(output: str, parent: Parent | None) -> None:
    """Raise ImageInUse if the image would replace one that others, or it itself, refer to."""
    if output == STANDARD or not os.path.isfile(output):
        return
    chain = [] if parent is None else [parent.image.path, *(one.path for one in parent.image.ancestors.values())]
    if any(os.path.samefile(output, path) for path in chain):
        raise ImageInUse(f"{output} is an image that the new one would refer to", hint="choose another name")
    users = dependants(output)
    if users:
        raise ImageInUse(
            f"{output} is in use: {', '.join(users)} refer{'' if len(users) > 1 else 's'} to its pages",
            hint=f"choose another name, or make what refers to it whole: 'orch prune {users[0]}'",
        )
