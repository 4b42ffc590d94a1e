"""Check that the records of an image fit together before anything is made from them.

An image may come from anywhere: what refers to nothing is an error that names the record.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.errors import ImageCorrupt
from orchestrator.kinds.files.bpf_map import BpfMap
from orchestrator.kinds.files.btf import Btf
from orchestrator.kinds.files.epoll import EventPoll
from orchestrator.kinds.files.fanotify import Fanotify
from orchestrator.kinds.files.ghost import Ghost
from orchestrator.kinds.files.inotify import Inotify
from orchestrator.kinds.files.kind import FileTable, OpenFile
from orchestrator.kinds.files.registry import kind_of
from orchestrator.kinds.memory.shared import SharedMemory
from orchestrator.kinds.record import Content, Record

_MOST_DESCRIPTORS = 1 << 30  # the kernel's own limit, NR_OPEN's maximum
_MOST_BYTES = 1 << 63


def check_references(
    files: Sequence[OpenFile], tables: Sequence[FileTable], objects: Sequence[Record], page_bytes: int
) -> None:
    """Raise ImageCorrupt unless every id leads to a record of the right kind, and contents lie in the page data."""
    for number, file in enumerate(files):
        if file.id != number:
            raise ImageCorrupt(f"open file {number} of the image calls itself {file.id}")
        if not 0 <= file.position < _MOST_BYTES:
            raise ImageCorrupt(f"open file {number} of the image is at position {file.position}")
        _check_object(file, objects)
        if isinstance(file.body, Inotify):
            for watch in file.body.watches:
                if not -1 <= watch.file < len(files):
                    raise ImageCorrupt(f"inotify {number} of the image watches open file {watch.file} of {len(files)}")
        if isinstance(file.body, Fanotify):
            for mark in file.body.marks:
                if not -1 <= mark.file < len(files):
                    raise ImageCorrupt(f"fanotify {number} of the image marks open file {mark.file} of {len(files)}")
        if isinstance(file.body, EventPoll):
            for entry in file.body.registrations:
                _check_descriptor(f"epoll {number}", entry.fd, entry.file, len(files))
    for number, table in enumerate(tables):
        for descriptor in table.descriptors:
            _check_descriptor(f"file table {number}", descriptor.fd, descriptor.file, len(files))
        if len({descriptor.fd for descriptor in table.descriptors}) != len(table.descriptors):
            raise ImageCorrupt(f"file table {number} of the image has a descriptor twice")
    for number, record in enumerate(objects):
        if isinstance(record, Ghost | SharedMemory | BpfMap):
            _check_content(f"object {number} ({type(record).__name__})", record.content, page_bytes)
        if isinstance(record, BpfMap):
            _check_map(number, record, objects)


def _check_map(number: int, record: BpfMap, objects: Sequence[Record]) -> None:
    typed = record.btf == -1 or (0 <= record.btf < len(objects) and isinstance(objects[record.btf], Btf))
    # A map of maps is made behind those that it holds, so no circle can be meant.
    known = all(0 <= of < number and isinstance(objects[of], BpfMap) for _, of in record.inner)
    if not typed or not known or record.content.size < record.count * record.key_size:
        raise ImageCorrupt(f"BPF map {number} of the image refers to what is not there")


def _check_object(file: OpenFile, objects: Sequence[Record]) -> None:
    of = getattr(file.body, "object", None)
    if of is None:
        return
    kinds = kind_of(file).objects
    if not 0 <= of < len(objects) or (kinds and not isinstance(objects[of], kinds)):
        raise ImageCorrupt(f"open file {file.id} of the image refers to object {of}, which is not what it needs")


def _check_descriptor(what: str, fd: int, file: int, count: int) -> None:
    if not 0 <= fd < _MOST_DESCRIPTORS:
        raise ImageCorrupt(f"{what} of the image has descriptor {fd}")
    if not 0 <= file < count:
        raise ImageCorrupt(f"{what} of the image refers to open file {file}, and there are {count}")


def _check_content(what: str, content: Content, page_bytes: int) -> None:
    for extent in content.extents:
        inside = 0 <= extent.start <= extent.start + extent.length <= content.size < _MOST_BYTES
        stored = 0 <= extent.at <= extent.at + extent.length <= page_bytes
        if not inside or not stored:
            raise ImageCorrupt(f"{what} of the image has contents where there are none: {extent}")
