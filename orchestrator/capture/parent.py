"""The image that a delta is made to: what of each address space it has, and where."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cached_property
from typing import Self
from uuid import UUID

import msgspec

from orchestrator.errors import CannotHonour
from orchestrator.ids import ObjectId, Pid
from orchestrator.image.chain import Link, open_ancestors
from orchestrator.image.places import number_of
from orchestrator.image.reader import ImageFile
from orchestrator.kinds.memory.known import KnownPages, pages_of
from orchestrator.kinds.memory.record import AddressSpace
from orchestrator.snapshot import Snapshot

LONGEST_CHAIN = 128
"""Each image of a chain takes a descriptor at a restore."""


class Parent(msgspec.Struct, dict=True):
    """An open image, with those that it refers to."""

    image: ImageFile
    snapshot: Snapshot

    @classmethod
    def open(cls, path: str) -> Self:
        """Open an image and see that all is there that it refers to. Raises ImageError's children."""
        image = ImageFile.open(path)
        try:
            snapshot = image.decode(Snapshot)
            open_ancestors(image, snapshot.chain)
            if len(snapshot.chain) >= LONGEST_CHAIN:
                raise CannotHonour(
                    f"{path} refers to {len(snapshot.chain)} other images already, which is the most",
                    hint=f"'orch prune {path}' makes it whole",
                )
        except BaseException:
            image.close()
            raise
        return cls(image, snapshot)

    @property
    def id(self) -> UUID:
        return self.image.header.image_id

    @cached_property
    def spaces(self) -> dict[ObjectId, KnownPages]:
        """What each address space has, by its number."""
        return {memory.id: KnownPages(pages_of(memory.vmas)) for memory in self.snapshot.memories}

    def space_of(self, pid: Pid) -> ObjectId | None:
        """Return the number of the address space that a process had."""
        for process in self.snapshot.processes:
            if process.pid == pid and process.state is not None:
                return process.state.memory
        return None

    def links(self, memories: Iterable[AddressSpace]) -> list[Link]:
        """Return the images that the runs of a delta lie in, as the delta shall name them."""
        used = {number_of(run[2]) for memory in memories for vma in memory.vmas for run in vma.runs}
        header = self.image.header
        mine = Link(1, header.image_id, os.path.basename(self.image.path), header.pages_length)
        theirs = [Link(link.number + 1, link.id, link.name, link.pages) for link in self.snapshot.chain]
        return [link for link in (mine, *theirs) if link.number in used]

    def close(self) -> None:
        self.image.close()
