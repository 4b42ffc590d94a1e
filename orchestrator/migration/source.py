"""Send a running job away: images of it while it runs, and what has changed since while it stands still.

The job is built at the destination before it is given up here, and let go there when it can run here no more. So
however this ends, it runs in one place at most; and if in none, its images are in both.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal

import msgspec

from orchestrator import precopy
from orchestrator.capture.guard import guarded
from orchestrator.checkpointing import CheckpointOptions, checkpoint
from orchestrator.errors import CommandNotFound, OrchError, PeerLost
from orchestrator.migration.wire import VERSION, Message, Wire
from orchestrator.target import Target

_ENDS_WITHIN = 5.0


class Migrated(msgspec.Struct, frozen=True):
    """What came of it."""

    name: str
    """What the job is called at the destination."""
    rounds: int
    """Images that were sent while the job ran."""
    sent_bytes: int
    pause_us: int
    """From the first task that stopped here until the job ran there, as seen from here."""


def migrate(
    target: Target,
    command: Sequence[str],
    options: CheckpointOptions,
    *,
    rounds: int,
    progress: Callable[[int, int], None] | None = None,
) -> Migrated:
    """Move a job to where ``command`` leads, whose input and output are those of an ``orch receive``.

    ``progress`` is called with the number of each round and its bytes. On failure the job goes on here as before,
    unless it had been given up already: then the error says where its images are.
    """
    with _connected(command) as wire, _spool() as spool:
        hello = wire.hear("hello")
        if hello.version != VERSION:
            raise PeerLost(f"the destination speaks version {hello.version} of this, and we {VERSION}")
        source = _Source(
            target, wire, spool.name, msgspec.structs.replace(options, durable=False, checksums=False, noted=False)
        )
        try:
            return source.move(rounds, progress)
        except OrchError as error:
            wire.fail(error)
            if source.has_given_up:  # its images are all that we know of it
                spool.kept = True
                error.hint = f"if it does not run there: 'orch restore {source.newest}'"
            raise


class _Spool:
    """A directory for images, removed in the end."""

    def __init__(self) -> None:
        self.name = tempfile.mkdtemp(prefix="orch-migrate-")
        self.kept = False


@contextlib.contextmanager
def _spool() -> Iterator[_Spool]:
    spool = _Spool()
    remove = partial(shutil.rmtree, spool.name, ignore_errors=True)
    with guarded(remove):
        try:
            yield spool
        finally:
            if not spool.kept:
                remove()


class _Source:
    """A job on its way."""

    def __init__(self, target: Target, wire: Wire, spool: str, options: CheckpointOptions) -> None:
        self._target = target
        self._wire = wire
        self._spool = spool
        self._options = options
        self._sent = 0
        self._letting_go_us = 0
        self._name = ""
        self.newest = ""
        """The image that was made last."""
        self.has_given_up = False
        """Whether the job cannot run here any more."""

    def move(self, rounds: int, progress: Callable[[int, int], None] | None) -> Migrated:
        """Send images until little is left, and then the job itself."""
        number = 0
        for number, path, changed in precopy.rounds(self._target, self._options, map(self._next, range(1, rounds + 1))):
            self._send(path, "image")
            self._wire.hear("got")
            if progress is not None:
                progress(number, changed)
        parent = self.newest
        self._wire.patience = self._options.timeout
        last = msgspec.structs.replace(
            self._options, parent=parent, ending="kill", hand_over=self._hand_over, given_up=self._give_up
        )
        took = checkpoint(self._target, self._next(number + 1), last)
        return Migrated(self._name, number, self._sent, took.frozen_us + self._letting_go_us)

    def _next(self, number: int) -> str:
        self.newest = os.path.join(self._spool, f"{number}.ckpt")
        return self.newest

    def _send(self, path: str, what: Literal["image", "last"]) -> None:
        self._wire.send_file(path, what)
        self._sent += os.stat(path).st_size

    def _hand_over(self, path: str) -> None:
        """Have the job built over there, while it is held here."""
        self._send(path, "last")
        self._wire.hear("ready")

    def _give_up(self) -> None:
        """Let the job go over there, as nothing of it can run here any more."""
        self.has_given_up = True
        began = time.monotonic_ns()
        self._wire.say(Message("go"))
        self._name = self._wire.hear("running").job
        self._letting_go_us = (time.monotonic_ns() - began) // 1000


@contextlib.contextmanager
def _connected(command: Sequence[str]) -> Iterator[Wire]:
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    except OSError as error:
        raise CommandNotFound(f"{command[0]} cannot be started: {error.strerror}") from error
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        for stream in (process.stdin, process.stdout):
            os.set_blocking(stream.fileno(), False)
        yield Wire(process.stdout.fileno(), process.stdin.fileno(), "the destination")
    finally:
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.stdout.close()
        try:
            process.wait(_ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
