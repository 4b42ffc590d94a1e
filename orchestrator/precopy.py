"""Write the memory of a job while it runs, and again what has changed since, before it stands still for the rest."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from msgspec.structs import replace

from orchestrator.ancestry import refuse_in_use
from orchestrator.capture.checkpoint import PAGE_SIZE, Statistics
from orchestrator.capture.guard import guarded
from orchestrator.checkpointing import CheckpointOptions, Progress, checkpoint
from orchestrator.errors import OrchError, UsageError
from orchestrator.image.chain import dependants
from orchestrator.image.spool import STANDARD
from orchestrator.kinds.sockets.tcp_ended import CUT
from orchestrator.kinds.sockets.tcp_hold import KEEP
from orchestrator.merge import prune
from orchestrator.target import Target

_FEW_BYTES = 16 << 20
"""What is written, or sent, within some tens of milliseconds."""


class Round(NamedTuple):
    """An image of a job that runs."""

    number: int
    """From 1 on."""
    path: str
    changed: int
    """Bytes that the job has written since the one before."""


def rounds(target: Target, options: CheckpointOptions, paths: Iterable[str]) -> Iterator[Round]:
    """Write images of a job, each a delta to the one before, until little changes or it does not get less."""
    options = replace(options, track=True, ending="run", hand_over=None, given_up=None, noted=False)
    if KEEP in options.externals:  # which those that go on cannot; these images are never restored
        options = replace(options, externals=options.externals - {KEEP} | {CUT})
    before = 0
    for number, path in enumerate(paths, 1):
        changed = checkpoint(target, path, options).pages_written * PAGE_SIZE
        yield Round(number, path, changed)
        if number > 1 and (changed <= _FEW_BYTES or changed > before * 3 // 4):
            return
        options, before = replace(options, parent=path), changed


def checkpoint_in_rounds(
    target: Target, output: str | None, options: CheckpointOptions, most: int, progress: Progress | None = None
) -> Statistics:
    """Write an image, most of it in at most so many rounds while the job runs. In the end it is one file, and whole.

    On failure there is no image, and the job goes on as before; but if it is only that it could not be made whole
    (ImageWriteFailed), it is there as a delta, beside those that it refers to.
    """
    if most < 1:
        raise UsageError("checkpoint: --precopy needs at least one round")
    if options.parent is not None or output == STANDARD or options.packing is not None or options.encrypt:
        raise UsageError(
            "checkpoint: --precopy goes together with neither --parent, --compress, --encrypt nor '-o -'",
            hint="each round is a delta to the one before it, in a plain file; in the end there is one",
        )
    output = target.default_image if output is None else output
    refuse_in_use(output, None)
    paths = [f"{output}.round-{number}" for number in range(1, most + 1)]
    for path in paths:
        if os.path.lexists(path):
            raise UsageError(f"{path} is in the way", hint="it is left from another checkpoint: remove it")
    with guarded(partial(_remove, paths)):
        try:
            *_, last = rounds(target, options, paths)
            took = checkpoint(target, output, replace(options, parent=last.path), progress)
        except BaseException:
            _remove(paths)
            raise
    try:
        took.image_bytes = prune(output, remove_parents=True, durable=options.durable).image_bytes
    except OrchError as error:
        error.hint = f"the image is good beside the others that it needs; 'orch prune {output}' tries again"
        raise
    took.rounds, took.delta_to, took.referred_bytes = last.number, "", 0
    return took


def _remove(paths: Sequence[str]) -> None:
    """Remove images that nobody needs; each may need the one before it."""
    for path in reversed(paths):
        if os.path.lexists(path) and not dependants(path):
            os.unlink(path)
