"""Take a job in that is sent by :mod:`orchestrator.migration.source`."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile

import msgspec

from orchestrator.capture.guard import guarded
from orchestrator.daemon import Reporter
from orchestrator.errors import OrchError, PeerLost
from orchestrator.foreground import restore_job
from orchestrator.image.reader import ImageFile
from orchestrator.migration.wire import VERSION, Message, Wire
from orchestrator.restoring import RestoreOptions, decode, may_restore, rebuild
from orchestrator.supervisor import Root


class Welcome(msgspec.Struct, frozen=True):
    """How a job is taken in."""

    name: str | None
    """Its name here; the one that it had when None."""
    options: RestoreOptions
    streams: tuple[int, ...]


def receive(wire: Wire, welcome: Welcome, reporter: Reporter) -> int:
    """Take in a job, let it run when it is given up at the source, and stand by it; return its root's wait status.

    Until then nothing of it has run here, and on failure nothing is left but the images, if the source may have given
    the job up: then the error says where they are.
    """
    wire.say(Message("hello", version=VERSION))
    arrival = _Arrival(wire, tempfile.mkdtemp(prefix="orch-receive-"), welcome.options)
    try:
        with ImageFile.open(arrival.first()) as image:
            snapshot = decode(image)
            may_restore(snapshot, welcome.options)  # what is missing here is better told before anybody waits
        return restore_job(
            arrival.rest,
            name=welcome.name if welcome.name is not None else snapshot.job,
            image="a migration",
            streams=welcome.streams,
            reporter=_Telling(reporter, wire, arrival),
        )
    except BaseException as error:
        if not arrival.runs:
            if arrival.is_built and isinstance(error, OrchError):
                error.hint = f"if it does not run at the source any more: 'orch restore {arrival.newest}'"
            wire.fail(error)
        raise
    finally:
        arrival.clear()


class _Arrival:
    """The images as they come."""

    def __init__(self, wire: Wire, spool: str, options: RestoreOptions) -> None:
        self._wire = wire
        self._spool = spool
        self._guard = contextlib.ExitStack()
        self._guard.enter_context(guarded(self._remove))
        self._options = msgspec.structs.replace(options, gate=self._gate)
        self._number = 0
        self.newest = ""
        """The image that came last."""
        self.is_built = False
        """Whether the source may have given the job up."""
        self.runs = False
        """Whether the job has run here."""

    def first(self) -> str:
        """Take in the first image."""
        return self._take(self._wire.hear("image"))

    def rest(self, cgroup: str) -> Root:
        """Take in what follows, and bring the job back from it."""
        while (message := self._wire.hear("image", "last")).what == "image":
            self._take(message)
        with ImageFile.open(self._take(message)) as image:
            return rebuild(image, decode(image), self._options, cgroup)[0]

    def clear(self) -> None:
        """Remove the images, unless they may be all that is left of the job."""
        if self.runs or not self.is_built:
            self._remove()
        self._guard.close()

    def _remove(self) -> None:
        shutil.rmtree(self._spool, ignore_errors=True)

    def _take(self, message: Message) -> str:
        self._number += 1
        self.newest = os.path.join(self._spool, f"{self._number}.ckpt")
        self._wire.receive_file(self.newest, message.size)
        if message.what == "image":
            self._wire.say(Message("got"))
        return self.newest

    def _gate(self) -> None:
        """Wait for the word that the job runs nowhere else."""
        self.is_built = True
        self._wire.say(Message("ready"))
        self._wire.hear("go")


class _Telling(Reporter):
    """Tells the source, too, that the job runs."""

    def __init__(self, reporter: Reporter, wire: Wire, arrival: _Arrival) -> None:
        super().__init__()
        self._reporter = reporter
        self._wire = wire
        self._arrival = arrival

    def running(self, job: str) -> None:
        self._arrival.runs = True
        self._arrival.clear()
        with contextlib.suppress(PeerLost):  # it runs, whoever hears of it
            self._wire.say(Message("running", job=job))
        self._reporter.running(job)
