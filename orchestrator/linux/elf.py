"""The build id of executables and libraries: which build of a program a file holds. See elf(5), ld(1) --build-id."""

from __future__ import annotations

import os
import struct

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_NOTE = struct.Struct("<III")
_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little endian
_PT_NOTE = 4
_NT_GNU_BUILD_ID = 3
_MOST_SEGMENTS = 128
_MOST_NOTE_BYTES = 64 << 10


def read_build_id(fd: int) -> bytes:
    """Return the build id that a file open for reading holds; b"" if it has none, or is no 64-bit ELF file."""
    page = os.pread(fd, 4096, 0)
    if not page.startswith(_MAGIC) or len(page) < _HEADER.size:
        return b""
    _, _, _, _, _, at, _, _, _, size, count, *_ = _HEADER.unpack_from(page)
    if size != _SEGMENT.size or count > _MOST_SEGMENTS:
        return b""
    table = page[at : at + size * count] if at + size * count <= len(page) else os.pread(fd, size * count, at)
    if len(table) < size * count:
        return b""
    for type_, _, offset, _, _, length, _, align in _SEGMENT.iter_unpack(table):
        if type_ != _PT_NOTE or length > _MOST_NOTE_BYTES:
            continue
        inside = offset + length <= len(page)
        found = _in_notes(page[offset : offset + length] if inside else os.pread(fd, length, offset), align)
        if found:
            return found
    return b""


def _in_notes(notes: bytes, align: int) -> bytes:
    step = 8 if align == 8 else 4
    at = 0
    while at + _NOTE.size <= len(notes):
        name_length, length, type_ = _NOTE.unpack_from(notes, at)
        name_at = at + _NOTE.size
        begin = -(-(name_at + name_length) // step) * step
        if type_ == _NT_GNU_BUILD_ID and notes[name_at : name_at + name_length] == b"GNU\0":
            return notes[begin : begin + length]
        at = -(-(begin + length) // step) * step
    return b""
