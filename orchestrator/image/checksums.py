"""Checksums: xxh3-128 for header, metadata and trailer, and a table of xxh3-64 for the page data.

They find damage, not malice: whoever can write an image can write its checksums.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from orchestrator.errors import ImageCorrupt

DIGEST_BYTES = 16
BLOCK_BYTES = 1 << 20
MAX_BLOCK_BYTES = 64 << 20

TABLE_MAGIC = b"ORCHSUMS"
_TABLE_HEAD = struct.Struct("<8sQQQ")  # magic, block length, covered length, reserved
assert _TABLE_HEAD.size == 32


def digest(data: bytes | bytearray | memoryview) -> bytes:
    """Return the xxh3-128 of `data`: 16 bytes in canonical (big endian) order."""
    import xxhash  # here, so that what only looks at names and options does not pay for it

    return xxhash.xxh3_128_digest(data)


def table_bytes(length: int, block: int = BLOCK_BYTES) -> int:
    """Return how long the table over `length` bytes is."""
    return _TABLE_HEAD.size + 8 * -(-length // block)


def block_checksums(fd: int, offset: int, length: int, block: int = BLOCK_BYTES) -> Iterator[int]:
    """Yield the xxh3-64 of every block of a file's range; the last block may be short.

    Raises EOFError where the file ends too early, and OSError.
    """
    import xxhash

    buffer = memoryview(bytearray(min(block, length)))
    end = offset + length
    while offset < end:
        wanted = buffer[: min(block, end - offset)]
        filled = 0
        while filled < len(wanted):
            got = os.preadv(fd, [wanted[filled:]], offset + filled)
            if got == 0:
                raise EOFError(offset + filled)
            filled += got
        yield xxhash.xxh3_64_intdigest(wanted)
        offset += filled


class BlockSums:
    """Checksums of page data that comes by in order, in parts of any length."""

    def __init__(self, block: int = BLOCK_BYTES) -> None:
        import xxhash

        self._new = xxhash.xxh3_64
        self._block = block
        self._hash = xxhash.xxh3_64()
        self._size = 0
        self._sums: list[int] = []

    def add(self, part: bytes | bytearray | memoryview) -> None:
        """Take the next bytes."""
        rest = memoryview(part)
        while rest:
            room = self._block - self._size % self._block
            piece, rest = rest[:room], rest[room:]
            self._hash.update(piece)
            self._size += len(piece)
            if len(piece) == room:
                self._end_block()

    def _end_block(self) -> None:
        self._sums.append(self._hash.intdigest())
        self._hash = self._new()

    def table(self) -> bytes:
        """Return the table of all that came. Nothing may come afterwards."""
        if self._size % self._block:
            self._end_block()
        return _encode_table(self._sums, self._size, self._block)


def checksum_extents(fd: int, offset: int, length: int, block: int = BLOCK_BYTES) -> bytes:
    """Read a file's range and return its checksum table. Raises EOFError and OSError."""
    sums = list(block_checksums(fd, offset, length, block))
    return _encode_table(sums, length, block)


def _encode_table(sums: list[int], length: int, block: int) -> bytes:
    return _TABLE_HEAD.pack(TABLE_MAGIC, block, length, 0) + struct.pack(f"<{len(sums)}Q", *sums)


def parse_table(table: bytes, length: int, *, name: str) -> tuple[int, tuple[int, ...]]:
    """Return block length and checksums of a table over `length` bytes. Raises ImageCorrupt."""
    if len(table) < _TABLE_HEAD.size:
        raise ImageCorrupt(f"{name}: checksum table: {len(table)} bytes are too few")
    magic, block, covered, reserved = _TABLE_HEAD.unpack_from(table)
    if magic != TABLE_MAGIC or reserved:
        raise ImageCorrupt(f"{name}: checksum table: it does not start as one")
    if not 0 < block <= MAX_BLOCK_BYTES:
        raise ImageCorrupt(f"{name}: checksum table: a block of {block} bytes is out of range")
    if covered != length or len(table) != table_bytes(length, block):
        raise ImageCorrupt(f"{name}: checksum table: it covers {covered} bytes, the page data has {length}")
    return block, struct.unpack_from(f"<{-(-length // block)}Q", table, _TABLE_HEAD.size)
