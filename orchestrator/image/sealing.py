"""Encryption of a whole image: an age v1 file (see docs/image-format.md), made and opened without a seek."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from orchestrator.errors import ImageCorrupt, ImageTruncated, WrongKey
from orchestrator.image.packing import Block

if TYPE_CHECKING:
    from orchestrator.image.keys import Identity, Recipient

MAGIC: Final = b"age-encryption.org/v1\n"
UNIT_BYTES: Final = 4096
"""What is encrypted is a multiple of this long: a last chunk that was cut can be told from one that was changed."""
_CHUNK_BYTES: Final = 65536
_TAG_BYTES: Final = 16
_NONCE_BYTES: Final = 16
_HEADER_END: Final = b"\n--- "
_MOST_HEADER_BYTES: Final = 1 << 20


class _Pulled:
    """Blocks as something to read from. What goes wrong on the way is kept: the library tells only its text."""

    def __init__(self, blocks: Iterable[Block]) -> None:
        self._blocks = iter(blocks)
        self._block = io.BytesIO()
        self.error: BaseException | None = None

    def read(self, size: int) -> bytes:
        data = self._block.read(size)
        try:
            while not data:
                block = next(self._blocks, None)
                if block is None:
                    return b""
                self._block = io.BytesIO(block)
                data = self._block.read(size)
        except BaseException as error:
            self.error = error
            raise
        return data


class _Pushed:
    """Something to write to; keeps what goes wrong, as the other."""

    def __init__(self, write: Callable[[Block], object]) -> None:
        self._write = write
        self.error: BaseException | None = None

    def write(self, data: bytes) -> int:
        try:
            self._write(data)
        except BaseException as error:
            self.error = error
            raise
        return len(data)

    def flush(self) -> None:
        pass


def seal(blocks: Iterable[Block], write: Callable[[Block], object], recipients: Sequence[Recipient]) -> None:
    """Encrypt ``blocks`` to all of ``recipients``, of whom any one can open it. Raises what either end raises."""
    import pyrage

    source, target = _Pulled(blocks), _Pushed(write)
    try:
        pyrage.encrypt_io(source, target, list(recipients))
    except (pyrage.EncryptError, OSError) as error:
        raise _first_cause(source, target, error) from None


def unseal(
    read: Callable[[int], bytes], write: Callable[[Block], object], identities: Sequence[Identity], *, name: str
) -> None:
    """Decrypt what ``read`` gives; what is written has been authenticated, chunk by chunk, but not yet the end.

    Raises WrongKey, ImageCorrupt, ImageTruncated, and what either end raises.
    """
    import pyrage

    source = _Counted(read)
    pulled, pushed = _Pulled(source), _Pushed(write)
    try:
        pyrage.decrypt_io(pulled, pushed, list(identities))
    except pyrage.DecryptError as error:
        if pulled.error or pushed.error:
            raise _first_cause(pulled, pushed, error) from None
        raise _header_error(str(error), name) from error
    except OSError as error:
        if pulled.error or pushed.error:
            raise _first_cause(pulled, pushed, error) from None
        if "truncated" in str(error) or source.was_cut:
            raise ImageTruncated(f"{name} is cut short: the last of its encrypted chunks are missing") from error
        raise ImageCorrupt(f"{name}: its encrypted data is damaged, or was changed") from error


def _first_cause(source: _Pulled, target: _Pushed, error: BaseException) -> BaseException:
    return source.error or target.error or error


def _header_error(text: str, name: str) -> WrongKey | ImageCorrupt | ImageTruncated:
    match text:
        case "No matching keys found":
            return WrongKey(f"{name} is encrypted to another key", hint="give the key file of whom it was encrypted to")
        case "failed to fill whole buffer" | "Incomplete header":
            return ImageTruncated(f"{name} is cut short: not even the header of its encryption is whole")
        case _:
            return ImageCorrupt(f"{name}: the header of its encryption is damaged: {text.splitlines()[0]}")


class _Counted:
    """Iterates over an encrypted stream, and knows at its end whether bytes of the last chunk are missing."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._head = b""
        self._size = 0
        self._ended = False

    def __iter__(self) -> _Counted:
        return self

    def __next__(self) -> bytes:
        block = self._read(1 << 20)
        if not block:
            self._ended = True
            raise StopIteration
        self._size += len(block)
        if len(self._head) < _MOST_HEADER_BYTES:
            self._head += block
        return block

    @property
    def was_cut(self) -> bool:
        """Whether it ended, and not behind a chunk that can be the last."""
        if not self._ended:
            return False
        begin = self._head.find(_HEADER_END)
        payload = self._size - self._head.find(b"\n", begin + len(_HEADER_END)) - 1 - _NONCE_BYTES
        last = payload % (_CHUNK_BYTES + _TAG_BYTES)
        return last != 0 and (last < _TAG_BYTES or (last - _TAG_BYTES) % UNIT_BYTES != 0)
