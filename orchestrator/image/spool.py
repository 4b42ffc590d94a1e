"""An image that cannot be written in place, because it goes through a pipe or is compressed: whole first, then sent.

So a pipe is filled, or a compressor waited for, only when the job goes on; and nothing is restored from a stream whose
end is missing. It costs room for one image in $TMPDIR.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import IO, Literal

from orchestrator.image.replacement import Replacement

STANDARD = "-"
"""The path that stands for standard input or output."""
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
"""What a Zstandard frame begins with. See RFC 8878."""

_BLOCK_BYTES = 1 << 20


class Spool:
    """The place of an image that ``deliver(fd, durable)`` takes away once it is whole. See replacement.Replacement."""

    fd: int
    """A nameless file, open for reading and writing until publish() or discard(); -1 afterwards."""

    def __init__(self, deliver: Callable[[int, bool], int], discard: Callable[[], None] = lambda: None) -> None:
        self._deliver = deliver
        self._discard = discard
        self.fd = nameless()

    def publish(self, *, durable: bool) -> int:
        """Send what was written, and return how long it was when it was sent."""
        length = self._deliver(self.fd, durable)
        self.discard()
        return length

    def discard(self) -> None:
        """Close what is open. May be called again."""
        self._discard()
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def directory() -> str:
    """Return where such files are made: $TMPDIR or what stands in for it."""
    import tempfile  # with what it imports, it takes half as long as all of this package

    return tempfile.gettempdir()


def nameless() -> int:
    """Create a file without a name in $TMPDIR, open for reading and writing. Raises OSError."""
    import tempfile

    with tempfile.TemporaryFile(buffering=0) as file:
        return os.dup(file.fileno())


def to_pipe(fd: int, level: int | None) -> Spool:
    """Return the place of an image that goes through a descriptor of ours; with a ``level``, compressed by zstd."""
    return Spool(lambda spool, _: _copy(spool, fd) if level is None else compress(spool, fd, level))


def compressed(path: str, level: int) -> Spool:
    """Return the place of an image that becomes a compressed file."""
    target = Replacement(path)

    def deliver(spool: int, durable: bool) -> int:
        compress(spool, target.fd, level)
        return target.publish(durable=durable)

    try:
        return Spool(deliver, target.discard)
    except BaseException:
        target.discard()
        raise


def compress(source: int, target: int, level: int) -> int:
    """Write a file as one Zstandard frame with a checksum; return the length of that. Raises OSError."""
    import zstandard

    os.lseek(source, 0, os.SEEK_SET)
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=True, threads=-1)
    with _opened(source, "rb") as reader, _opened(target, "wb") as writer:
        size = os.fstat(source).st_size
        return compressor.copy_stream(reader, writer, size=size, read_size=_BLOCK_BYTES, write_size=_BLOCK_BYTES)[1]


def receive(source: int) -> int:
    """Read a stream to its end, unpack it if it is compressed, and return a nameless file with it.

    Raises OSError, EOFError if a compressed one is cut short, and ValueError if it is damaged.
    """
    target = nameless()
    try:
        with _opened(source, "rb") as reader, _opened(target, "wb") as writer:
            block = reader.read(_BLOCK_BYTES)
            unpack = _unpacker() if block.startswith(ZSTD_MAGIC) else bytes
            while block:
                writer.write(unpack(block))
                block = reader.read(_BLOCK_BYTES)
            unpack(b"")
    except BaseException:
        os.close(target)
        raise
    return target


def _unpacker() -> Callable[[bytes], bytes]:
    """Return what unpacks a frame part by part; a last empty part asks whether it was whole."""
    import zstandard

    frame = zstandard.ZstdDecompressor().decompressobj()

    def unpack(part: bytes) -> bytes:
        if part and frame.eof:
            raise ValueError("something follows its compressed data")
        if not part and not frame.eof:
            raise EOFError("its compressed data is cut short")
        try:
            data = frame.decompress(part) if part else b""
        except zstandard.ZstdError as error:
            raise ValueError(f"its compressed data is damaged: {error}") from error
        if frame.unused_data:
            raise ValueError("something follows its compressed data")
        return data

    return unpack


def _opened(fd: int, mode: Literal["rb", "wb"]) -> IO[bytes]:
    return open(fd, mode, buffering=_BLOCK_BYTES, closefd=False)


def _copy(source: int, target: int) -> int:
    size = os.fstat(source).st_size
    at = 0
    while at < size:
        sent = os.sendfile(target, source, at, size - at)
        if sent == 0:
            raise OSError(errno.EIO, "the image was cut short by somebody else")
        at += sent
    return size
