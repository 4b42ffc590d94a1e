"""Compression of a whole image: a Zstandard frame (RFC 8878) or an LZ4 frame. Libraries load when they are used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal, NamedTuple

from orchestrator.errors import UsageError

Block = bytes | bytearray | memoryview

ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
LZ4_MAGIC: Final = b"\x04\x22\x4d\x18"
SKIPPABLE_MAGIC: Final = b"\x50\x2a\x4d\x18"
"""Of a frame that says nothing; both formats have it."""
MAGICS: Final = (ZSTD_MAGIC, LZ4_MAGIC)
MAGIC_BYTES: Final = 4
SKIPPABLE_HEAD_BYTES: Final = 8

_LEVELS: Final = {"zstd": range(1, 20), "lz4": range(1, 13)}
_DEFAULT_LEVEL: Final = {"zstd": 3, "lz4": 1}


class Packing(NamedTuple):
    """How an image is compressed."""

    method: Literal["zstd", "lz4"]
    level: int


def parse_packing(text: str | int) -> Packing:
    """Read "zstd", "zstd:7", "lz4", "lz4:9", or a level of zstd. Raises UsageError."""
    name, colon, level = str(text).partition(":")
    if name.isascii() and name.isdecimal() and not colon:
        name, colon, level = "zstd", ":", name
    for method in ("zstd", "lz4"):
        if name == method and not colon:
            return Packing(method, _DEFAULT_LEVEL[method])
        if name == method and level.isascii() and level.isdecimal() and int(level) in _LEVELS[method]:
            return Packing(method, int(level))
    raise UsageError(
        f"images cannot be compressed by {str(text)!r}",
        hint="choose from zstd[:LEVEL], from 1 (fast) to 19 (small), and lz4[:LEVEL], from 1 to 12",
    )


def pack(blocks: Iterable[Block], size: int, packing: Packing) -> Iterator[Block]:
    """Compress ``size`` bytes to one frame that has its content size and a checksum."""
    if packing.method == "zstd":
        import zstandard

        frame = zstandard.ZstdCompressor(level=packing.level, write_checksum=True, threads=-1).compressobj(size=size)
        yield from (frame.compress(block) for block in blocks)
        yield frame.flush()
        return
    import lz4.frame

    with lz4.frame.LZ4FrameCompressor(
        compression_level=packing.level,
        block_size=lz4.frame.BLOCKSIZE_MAX4MB,
        block_linked=False,
        content_checksum=True,
    ) as small:
        yield small.begin(source_size=size)
        yield from (small.compress(block) for block in blocks)
        yield small.flush()


def pad(blocks: Iterable[Block], unit: int) -> Iterator[Block]:
    """Put a skippable frame behind compressed data, so that all of it is a multiple of ``unit`` bytes."""
    size = 0
    for block in blocks:
        size += len(block)
        yield block
    if size % unit:
        length = -(size + SKIPPABLE_HEAD_BYTES) % unit
        yield SKIPPABLE_MAGIC + length.to_bytes(4, "little") + bytes(length)


class Unpacker:
    """Unpacks an image part by part, whatever it is compressed by, and hands the parts on.

    write() raises ValueError if it is damaged, and finish() EOFError if it is cut short.
    """

    def __init__(self, sink: Callable[[Block], object]) -> None:
        self._sink = sink
        self._head = b""
        self._frame: _Frame | None = None
        self._plain = False

    def write(self, part: Block) -> int:
        """Take the next bytes."""
        length = len(part)
        if not self._plain and self._frame is None:
            part = self._head = self._head + bytes(part)
            if len(part) < MAGIC_BYTES:
                return length
            self._begin(part[:MAGIC_BYTES])
        if self._frame is None:
            self._sink(part)
            return length
        rest = memoryview(part)
        while rest:
            self._sink(self._frame.unpack(rest[: self._frame.at_once]))
            rest = rest[self._frame.at_once :]
        return length

    def _begin(self, magic: Block) -> None:
        self._plain = magic not in MAGICS
        if not self._plain:
            self._frame = _ZstdFrame() if magic == ZSTD_MAGIC else _Lz4Frame()

    def flush(self) -> None:
        """Do nothing: for those who think of it as a file."""

    def finish(self) -> None:
        """Say that there is no more."""
        if self._frame is not None:
            self._frame.finish()
        elif not self._plain:
            self._sink(self._head)


class _Frame:
    """One compressed frame, and what may follow it: a skippable one."""

    at_once = 1 << 20
    """So many bytes of it are unpacked in one go."""

    def __init__(self) -> None:
        self._behind = b""

    def unpack(self, part: Block) -> bytes:
        if self._has_ended():
            self._follow(bytes(part))
            return b""
        data = self._decompress(part)
        if self._has_ended():
            self._follow(self._unused)
        return data

    def finish(self) -> None:
        if not self._has_ended():
            raise EOFError("its compressed data is cut short")
        behind = self._behind
        if behind and len(behind) != SKIPPABLE_HEAD_BYTES + int.from_bytes(behind[4:8], "little"):
            raise EOFError("what follows its compressed data is cut short")

    def _follow(self, part: bytes) -> None:
        behind = self._behind = self._behind + part
        length = SKIPPABLE_HEAD_BYTES + int.from_bytes(behind[4:8], "little")
        if not behind.startswith(SKIPPABLE_MAGIC[: len(behind)]) or (len(behind) >= 8 and len(behind) > length):
            raise ValueError("something follows its compressed data")

    def _has_ended(self) -> bool:
        raise NotImplementedError

    @property
    def _unused(self) -> bytes:
        raise NotImplementedError

    def _decompress(self, part: Block) -> bytes:
        raise NotImplementedError


class _ZstdFrame(_Frame):
    at_once = 4096  # four bytes may stand for 128 KiB

    def __init__(self) -> None:
        import zstandard

        super().__init__()
        self._error = zstandard.ZstdError
        self._frame = zstandard.ZstdDecompressor().decompressobj()

    def _has_ended(self) -> bool:
        return self._frame.eof

    @property
    def _unused(self) -> bytes:
        return self._frame.unused_data

    def _decompress(self, part: Block) -> bytes:
        try:
            return self._frame.decompress(part)
        except self._error as error:
            raise ValueError(f"its compressed data is damaged: {error}") from error


class _Lz4Frame(_Frame):
    def __init__(self) -> None:
        import lz4.frame

        super().__init__()
        self._frame = lz4.frame.LZ4FrameDecompressor()

    def _has_ended(self) -> bool:
        return bool(self._frame.eof)

    @property
    def _unused(self) -> bytes:
        return self._frame.unused_data or b""

    def _decompress(self, part: Block) -> bytes:
        try:
            return bytes(self._frame.decompress(part))
        except RuntimeError as error:
            raise ValueError(f"its compressed data is damaged: {error}") from error
