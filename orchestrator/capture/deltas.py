"""What a checkpoint has to do with others of its job: the parent of a delta, and the tracking for the next one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from uuid import UUID

import msgspec

from orchestrator.capture.beforehand import arm, equal_pages
from orchestrator.capture.hold import HeldJob
from orchestrator.capture.parent import Parent
from orchestrator.capture.tracker import Tracker
from orchestrator.capture.tracking import JobTracking, Watch
from orchestrator.ids import ObjectId
from orchestrator.image.chain import Link
from orchestrator.image.places import ONE_IMAGE
from orchestrator.kinds.memory.known import KnownPages
from orchestrator.kinds.memory.record import AddressSpace
from orchestrator.linux import pagemap

WORTH_A_REPLICA = 32 << 20
"""To clone a process takes longer than to write so many bytes while it is held."""
_TOP = (1 << 47) - pagemap.PAGE_SIZE


class Deltas(msgspec.Struct):
    """How writes to the memory of a job are followed."""

    tracker: Tracker | None = None
    """What was noted until now."""
    parent: Parent | None = None
    """The image that the one being made is a delta to."""
    may_watch: bool = True
    """Whether writes can be noted: not if devices may write to the memory by themselves."""
    arm: bool = False
    """Whether writes are noted from here on, for a delta to the image being made."""
    known: Mapping[ObjectId, KnownPages] | None = None
    """What a comparison has found to be the parent's, by the numbers of the watches."""
    keeps: bool = False
    """Whether writes are noted when all is done."""

    @property
    def _notes_parent(self) -> bool:
        """Whether what was noted is relative to the parent."""
        return self.tracker is not None and self.parent is not None and self.tracker.image == self.parent.id

    @property
    def must_compare(self) -> bool:
        """Whether nobody has noted what was written since the parent."""
        return self.parent is not None and self.tracker is not None and not self._notes_parent and self.may_watch

    def compare(self, hold: Callable[[], AbstractContextManager[HeldJob]]) -> None:
        """Hold the job for a moment, and compare its memory with the parent while it runs on."""
        tracker, parent = self.tracker, self.parent
        assert tracker is not None
        assert parent is not None
        watches, tracker.watches, tracker.image = tracker.watches, [], None
        with hold() as job:
            tracker.watches, whose = arm(job, watches)
        known: dict[ObjectId, KnownPages] = {}
        for watch in tracker.watches:
            of = parent.space_of(whose[watch.memory])
            runs = parent.spaces[of].runs if of is not None else ()
            known[watch.memory] = KnownPages(equal_pages(watch.pid, runs, parent.image))
        self.known = known

    def unwritten_bytes(self) -> int:
        """Guess how much of the memory need not be stored."""
        if self.known is not None:
            return sum(pages.bytes for pages in self.known.values())
        if self.tracker is None or not self._notes_parent:
            return 0
        return sum(_unwritten(watch) for watch in self.tracker.watches)

    @contextlib.contextmanager
    def followed(self) -> Iterator[JobTracking | None]:
        """Follow the writes while the job is held. What is noted when it is let go is left to a warden.

        So it is if the checkpoint fails, unless the memory was armed for an image that will not be there.
        """
        tracker = self.tracker
        if tracker is None or not (self.arm or tracker.watches):
            yield None
            return
        known = self.parent.spaces if self.parent is not None and self._notes_parent else self.known or {}
        watches, tracker.watches = tracker.watches, []
        tracking = JobTracking(watches, known, arm=self.arm)
        try:
            yield tracking
        finally:
            tracker.watches = tracking.give()
            if tracker.image is None:  # it is relative to what only we know
                tracker.forget()
            self.keeps = tracker.leave()

    def armed_for(self, image: UUID, path: str) -> None:
        """Note for which image the memory was armed, if it was."""
        if self.arm and self.tracker is not None:
            self.tracker.image, self.tracker.path = image, os.path.abspath(path)

    def referred_bytes(self, memories: Iterable[AddressSpace]) -> int:
        """Add up how much of the captured memory lies in other images."""
        if self.parent is None:
            return 0
        return sum(run[1] for memory in memories for vma in memory.vmas for run in vma.runs if run[2] >= ONE_IMAGE)

    def links(self, memories: Iterable[AddressSpace]) -> list[Link]:
        """Return the images that the captured memory refers to."""
        return self.parent.links(memories) if self.parent is not None else []


def _unwritten(watch: Watch) -> int:
    try:
        fd = os.open(f"/proc/{watch.pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        found = pagemap.scan(
            fd,
            0,
            _TOP,
            category_inverted=pagemap.PAGE_IS_WRITTEN,
            category_mask=pagemap.PAGE_IS_WRITTEN | pagemap.PAGE_IS_WPALLOWED,
            category_anyof_mask=pagemap.PAGE_IS_PRESENT | pagemap.PAGE_IS_SWAPPED,
        )
    except OSError:
        return 0
    finally:
        os.close(fd)
    return sum(end - start for start, end, _ in found)
