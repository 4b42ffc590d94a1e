"""Make a delta whole: take over the pages that it has in other images, so that these can be removed.

The image keeps its id and the places of its own pages, and what it takes over comes behind these. So the deltas that
refer to it stay right.
"""

from __future__ import annotations

import errno
import os
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from orchestrator.errors import ImageWriteFailed, UsageError
from orchestrator.image.chain import dependants, headers_in, is_packed, open_ancestors, read_header
from orchestrator.image.codec import encode_records
from orchestrator.image.header import Header
from orchestrator.image.places import number_of, offset_in
from orchestrator.image.reader import ImageFile
from orchestrator.image.writer import ImageWriter
from orchestrator.kinds.memory.known import check_places
from orchestrator.kinds.memory.record import AddressSpace, PageRun
from orchestrator.snapshot import Snapshot

_AT_ONCE = 64 << 20
_NOT_HERE = (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)


class Taken(NamedTuple):
    """Page data of another image, and where it goes."""

    place: int
    length: int
    at: int

    @property
    def end(self) -> int:
        """The place behind it."""
        return self.place + self.length


class Merged(msgspec.Struct, frozen=True):
    """What became of an image."""

    path: str
    was_delta: bool
    image_bytes: int
    removed: list[str]
    """The images that were removed."""
    kept: dict[str, list[str]]
    """Those that were to be removed, and by whom they are needed."""


def prune(path: str, *, remove_parents: bool = False, durable: bool = True) -> Merged:
    """Make an image whole, in place. With ``remove_parents`` remove those that it descends from, if nobody needs them.

    Raises ChainBroken and other ImageErrors; then it is what it was.
    """
    if is_packed(path):
        raise UsageError(f"{path} is compressed or encrypted: such an image is whole")
    with ImageFile.open(path) as image:
        snapshot = image.decode(Snapshot)
        open_ancestors(image, snapshot.chain)
        others = _forebears(image)
        was_delta = bool(image.ancestors)
        if was_delta:
            size = _rewrite(image, snapshot, durable=durable)
        else:
            size = os.fstat(image.fd).st_size
    removed: list[str] = []
    kept: dict[str, list[str]] = {}
    for other in others if remove_parents else ():  # the newest comes first, as it may be who needs the next
        users = dependants(other)
        if users:
            kept[other] = users
        else:
            os.unlink(other)
            removed.append(other)
    return Merged(path, was_delta, size, removed, kept)


def _forebears(image: ImageFile) -> list[str]:
    """Return the images that one refers to, and those that it descends from, as far as they are there; newest first."""
    there = {header.image_id: path for path, header in headers_in(os.path.dirname(image.path) or os.curdir)}
    found = []
    of: Header | None = image.header
    while of is not None and of.parent_id in there:
        path = there.pop(of.parent_id)
        found.append(path)
        of = read_header(path)
    others = [other.path for _, other in sorted(image.ancestors.items())]
    return found + [path for path in others if not any(os.path.samefile(path, known) for known in found)]


def tips_in(directory: str) -> list[str]:
    """Return the deltas in a directory that no other image refers to."""
    deltas = [path for path, header in headers_in(directory) if header.has_chain]
    return [path for path in deltas if not dependants(path)]


def _rewrite(image: ImageFile, snapshot: Snapshot, *, durable: bool) -> int:
    sizes = {0: image.pages_length, **{number: other.pages_length for number, other in image.ancestors.items()}}
    check_places(snapshot.memories, sizes)
    for one in (image, *image.ancestors.values()):
        one.verify_pages()  # what is damaged would get a checksum that says it is not
    taken = plan_taking(snapshot.memories, image.pages_length)
    total = taken[-1].at + taken[-1].length if taken else image.pages_length
    memories = [_moved(memory, taken) for memory in snapshot.memories]
    whole = msgspec.structs.replace(snapshot, memories=memories, chain=[], page_bytes=total)
    header = image.header
    with ImageWriter(
        image.path, architecture=header.architecture, page_size=header.page_size, image_id=header.image_id
    ) as writer:
        pages_at = writer.begin(encode_records(whole), total)
        assert writer.header is not None
        writer.header = msgspec.structs.replace(writer.header, created_unix_ns=header.created_unix_ns)
        try:
            _copy(image, 0, image.pages_length, writer.fd, pages_at)
            for part in taken:
                other = image.ancestors[number_of(part.place)]
                _copy(other, offset_in(part.place), part.length, writer.fd, pages_at + part.at)
        except OSError as error:
            raise writer.failed(error) from error
        writer.commit(durable=durable, checksums=image.has_checksums)
        return writer.image_bytes


def plan_taking(memories: Iterable[AddressSpace], at: int) -> list[Taken]:
    """Say what is taken over from other images, each place once, ascending, and where it goes: from ``at`` on."""
    wanted = sorted({(run[2], run[1]) for memory in memories for vma in memory.vmas for run in vma.runs})
    taken: list[Taken] = []
    for place, length in wanted:
        if not number_of(place):
            continue
        if taken and place <= taken[-1].end:
            more = max(place + length - taken[-1].end, 0)
            taken[-1] = taken[-1]._replace(length=taken[-1].length + more)
            at += more
        else:
            taken.append(Taken(place, length, at))
            at += length
    return taken


def _moved(memory: AddressSpace, taken: Sequence[Taken]) -> AddressSpace:
    vmas = []
    for vma in memory.vmas:
        if any(number_of(run[2]) for run in vma.runs):
            vma = msgspec.structs.replace(vma, runs=tuple(moved_runs(vma.runs, taken)))
        vmas.append(vma)
    return msgspec.structs.replace(memory, vmas=vmas)


def moved_runs(runs: Iterable[PageRun], taken: Sequence[Taken]) -> list[PageRun]:
    """Return runs with their places in the whole image; neighbours in memory and image become one."""
    places = [part.place for part in taken]
    moved: list[PageRun] = []
    for start, length, at in runs:
        if number_of(at):
            part = taken[bisect_right(places, at) - 1]
            at = part.at + at - part.place
        if moved and moved[-1].end == start and moved[-1].at + moved[-1].length == at:
            moved[-1] = moved[-1]._replace(length=moved[-1].length + length)
        else:
            moved.append(PageRun(start, length, at))
    return moved


def _copy(source: ImageFile, offset: int, length: int, target: int, at: int) -> None:
    """Copy page data inside the kernel."""
    done = 0
    while done < length:
        part = min(length - done, _AT_ONCE)
        moved = _copy_some(source.fd, source.pages_offset + offset + done, part, target, at + done)
        if moved == 0:
            raise ImageWriteFailed(f"{source.path} was cut short while it was read")
        done += moved


def _copy_some(source: int, offset: int, length: int, target: int, at: int) -> int:
    try:
        return os.copy_file_range(source, target, length, offset, at)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
    os.lseek(target, at, os.SEEK_SET)
    return os.sendfile(target, source, offset, length)
