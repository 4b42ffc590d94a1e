"""An image that cannot be read in place, because it comes through a pipe, or is compressed or encrypted: whole first.

So nothing is restored from a stream whose end is missing. A nameless file in $TMPDIR takes it, or, if it is encrypted,
memory: what was a secret on its way does not get onto a disk here.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable, Sequence
from typing import Final

from orchestrator.errors import CannotHonour, ImageCorrupt, ImageEncrypted, ImageTruncated
from orchestrator.image import sealing
from orchestrator.image.header import HEADER_BYTES, Header
from orchestrator.image.packing import MAGICS, Block, Unpacker
from orchestrator.image.spool import directory, in_memory, nameless
from orchestrator.linux.spare import spare_bytes

_BLOCK_BYTES: Final = 1 << 20


def must_be_received(head: bytes) -> bool:
    """Say whether a file that begins so is compressed or encrypted."""
    return head.startswith((*MAGICS, sealing.MAGIC))


HEAD_BYTES: Final = len(sealing.MAGIC)
"""So much of a file must_be_received() wants to see."""


def receive(source: int, keys: Sequence[str], *, name: str) -> int:
    """Read a stream to its end, decrypt and unpack it if need be, and return a nameless file with the image.

    ``keys`` are key files; they are read only if the image is encrypted. Raises ImageEncrypted, WrongKey, BadKey,
    ImageTruncated, ImageCorrupt, and CannotHonour if there is no room for it.
    """
    reader = _Reader(source, name)
    encrypted = reader.starts_with(sealing.MAGIC)
    if encrypted and not keys:
        raise ImageEncrypted(f"{name} is encrypted", hint="name a private key by --key FILE or in ORCH_KEY")
    try:
        target = in_memory() if encrypted else nameless()
    except OSError as error:
        raise _no_room(name, error) from error
    try:
        _receive(reader, target, keys if encrypted else (), name)
    except BaseException:
        os.close(target)
        raise
    return target


def _receive(reader: _Reader, target: int, keys: Sequence[str], name: str) -> None:
    write = _writer(target, name)
    unpacker = Unpacker(_checked_for_room(write, name) if keys else write)
    try:
        if keys:
            from orchestrator.image.keys import read_identities

            sealing.unseal(reader.read, unpacker.write, read_identities(keys), name=name)
        else:
            while block := reader.read(_BLOCK_BYTES):
                unpacker.write(block)
        unpacker.finish()
    except EOFError as error:
        raise ImageTruncated(f"{name}: {error}") from error
    except ValueError as error:
        raise ImageCorrupt(f"{name}: {error}") from error


def _writer(target: int, name: str) -> Callable[[Block], None]:
    def write(data: Block) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(target, rest) :]
        except OSError as error:
            raise _no_room(name, error) from error

    return write


def _checked_for_room(write: Callable[[Block], None], name: str) -> Callable[[Block], None]:
    """See, as soon as the header has come, that all of the image fits into memory."""
    head: bytes | None = b""

    def checked(data: Block) -> None:
        nonlocal head
        if head is not None:
            head += bytes(data[:HEADER_BYTES])
            if len(head) >= HEADER_BYTES:
                size = Header.decode(head[:HEADER_BYTES], name=name).pages_end
                head = None
                room = spare_bytes([os.getpid()])
                if size > room:
                    raise CannotHonour(
                        f"{name} needs {size >> 20} MiB of memory while it is read, as it is encrypted, and"
                        f" {room >> 20} MiB are free here",
                        hint="'age -d -i KEYFILE FILE | orch restore -' keeps it in $TMPDIR instead, in the clear",
                    )
        write(data)

    return checked


def _no_room(name: str, error: OSError) -> ImageCorrupt:
    hint = f"it is kept in {directory()}: make room there, or set TMPDIR" if error.errno == errno.ENOSPC else None
    return ImageCorrupt(f"{name} cannot be taken in: {error.strerror}", hint=hint)


class _Reader:
    """A descriptor of which the beginning can be looked at first, even if it is a pipe."""

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self._name = name
        self._head = b""

    def starts_with(self, magic: bytes) -> bool:
        while len(self._head) < len(magic):
            block = self._more(_BLOCK_BYTES)
            if not block:
                break
            self._head += block
            if not magic.startswith(self._head[: len(magic)]):
                break
        return self._head.startswith(magic)

    def read(self, size: int) -> bytes:
        if self._head:
            head, self._head = self._head[:size], self._head[size:]
            return head
        return self._more(size)

    def _more(self, size: int) -> bytes:
        try:
            while True:
                try:
                    return os.read(self._fd, size)
                except BlockingIOError:  # whoever shares it has made it so
                    poll = select.poll()
                    poll.register(self._fd, select.POLLIN)
                    poll.poll()
        except OSError as error:
            raise ImageCorrupt(f"{self._name} cannot be read: {error.strerror}") from error
