"""Open an image: refuse what is not one, cut short, damaged or foreign before anything is believed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar

from orchestrator.errors import (
    ImageCorrupt,
    ImageMissing,
    ImageTruncated,
    NotAnImage,
    NotPermitted,
    OrchError,
    UsageError,
)
from orchestrator.image.checksums import DIGEST_BYTES, block_checksums, digest, parse_table, table_bytes
from orchestrator.image.codec import decode_records
from orchestrator.image.extents import align_up
from orchestrator.image.header import HEADER_BYTES, Header
from orchestrator.image.places import number_of, offset_in
from orchestrator.image.receive import HEAD_BYTES, must_be_received, receive
from orchestrator.image.spool import STANDARD
from orchestrator.image.trailer import TRAILER_BYTES, Trailer

T = TypeVar("T")


class ImageFile:
    """A finished image, open for reading. Made by ImageFile.open()."""

    def __init__(self, path: str, fd: int, header: Header, trailer: Trailer) -> None:
        self.path = path
        self.fd = fd
        """Open for reading; -1 after close()."""
        self.header = header
        self.ancestors: dict[int, ImageFile] = {}
        """The images that this one refers to, by their number in its places; see chain.open_ancestors()."""
        self._trailer = trailer
        self._metadata: bytes | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, foreign: bool = False, keys: Sequence[str] = ()) -> ImageFile:
        """Open and check an image; symbolic links are followed. With `foreign`, of any architecture.

        "-" is read from standard input to its end. A compressed image is unpacked first, to a nameless file; one that
        is encrypted is opened by a private key in one of the files `keys`.

        Raises ImageMissing, NotAnImage, ImageTruncated, ImageVersion, ImageArchitecture, ImageCorrupt,
        ImageEncrypted, WrongKey, BadKey, and NotPermitted if it may not be read.
        """
        name = os.fspath(path)
        if name == STANDARD:
            name = "standard input"
            if os.isatty(0):
                raise UsageError(
                    "an image is not read from a terminal",
                    hint="as in 'ssh HOST orch checkpoint ... -o - | orch restore -'",
                )
            fd = receive(0, keys, name=name)
        else:
            fd = _open(name)
        try:
            if must_be_received(_head(fd, name)):
                packed, fd = fd, receive(fd, keys, name=name)
                os.close(packed)
            status = os.fstat(fd)
            page = _read(fd, 0, min(HEADER_BYTES, status.st_size), name)
            header = Header.decode(page, name=name)
            if not foreign:
                header.require_machine(os.uname().machine, os.sysconf("SC_PAGE_SIZE"), name=name)
            trailer = _read_trailer(fd, status.st_size, header, page, name)
        except BaseException:
            os.close(fd)
            raise
        return cls(name, fd, header, trailer)

    @property
    def pages_offset(self) -> int:
        """Where the page data starts in the file."""
        return self.header.pages_offset

    @property
    def pages_length(self) -> int:
        """How many bytes of page data there are."""
        return self.header.pages_length

    @property
    def has_checksums(self) -> bool:
        """Whether the image holds checksums of its page data."""
        return self._trailer.table_length > 0

    @property
    def metadata(self) -> bytes:
        """The metadata, read and verified the first time. Raises ImageCorrupt and ImageTruncated."""
        if self._metadata is None:
            data = _read(self.fd, self.header.metadata_offset, self.header.metadata_length, self.path)
            if digest(data) != self.header.metadata_checksum:
                raise ImageCorrupt(f"{self.path}: the metadata is damaged: its checksum does not match")
            self._metadata = data
        return self._metadata

    def decode(self, kind: type[T]) -> T:
        """Decode the metadata as a `kind`. Raises ImageCorrupt naming the record, and ImageVersion."""
        return decode_records(self.metadata, kind, name=self.path)

    def verify_pages(self, progress: Callable[[int], None] | None = None) -> int:
        """Compare the page data with its checksums and return how many bytes were compared.

        That is 0 if the image has no checksums. `progress` is called with the bytes compared so far.
        Raises ImageCorrupt naming the file offset of the first damaged block.
        """
        if not self.has_checksums:
            return 0
        table = _read(self.fd, self._trailer.table_offset, self._trailer.table_length, self.path)
        if digest(table) != self._trailer.table_checksum:
            raise ImageCorrupt(f"{self.path}: the checksum table is damaged: its own checksum does not match")
        length = self.pages_length
        block, expected = parse_table(table, length, name=self.path)
        compared = 0
        try:
            for found, wanted in zip(block_checksums(self.fd, self.pages_offset, length, block), expected, strict=True):
                count = min(block, length - compared)
                if found != wanted:
                    raise ImageCorrupt(
                        f"{self.path}: the page data is damaged: {count} bytes at offset {self.pages_offset + compared}"
                        f" ({compared} into the page data) do not match their checksum"
                    )
                compared += count
                if progress:
                    progress(compared)
        except EOFError as error:
            raise ImageTruncated(f"{self.path} was cut short while it was read") from error
        except OSError as error:
            raise _read_failed(self.path, self.pages_offset + compared, error) from error
        return compared

    def find(self, place: int) -> tuple[ImageFile, int]:
        """Return the image of the chain that a place is in, and the file offset there."""
        number = number_of(place)
        image = self.ancestors[number] if number else self
        return image, image.pages_offset + offset_in(place)

    def close(self) -> None:
        """Close the file and those that it refers to. May be called again."""
        while self.ancestors:
            self.ancestors.popitem()[1].close()
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _open(name: str) -> int:
    """Open a regular file."""
    try:
        # O_NONBLOCK: do not wait for the other end of a FIFO
        fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise _open_failed(name, error) from error
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        raise NotAnImage(f"{name} is not an orch image: it is {_describe_type(mode)}")
    os.set_blocking(fd, True)
    return fd


def _head(fd: int, name: str) -> bytes:
    try:
        return os.pread(fd, HEAD_BYTES, 0)
    except OSError as error:
        raise _read_failed(name, 0, error) from error


def _read_trailer(fd: int, file_bytes: int, header: Header, header_page: bytes, name: str) -> Trailer:
    """Read the trailer and hold it against header and file. Raises ImageTruncated and ImageCorrupt."""
    least = header.pages_end + TRAILER_BYTES
    if file_bytes < least:
        raise ImageTruncated(f"{name} is cut short: {file_bytes} of at least {least} bytes are there")
    trailer = Trailer.decode(_read(fd, file_bytes - TRAILER_BYTES, TRAILER_BYTES, name), name=name)
    if trailer.total_length != file_bytes:
        raise ImageCorrupt(f"{name}: it has {file_bytes} bytes, its trailer says {trailer.total_length}")
    if trailer.image_id != header.image_id or trailer.header_checksum != header_page[-DIGEST_BYTES:]:
        raise ImageCorrupt(f"{name}: the trailer belongs to another image than the header")
    # A table is behind the page data and before the trailer, with nothing between but its padding.
    offset, length = trailer.table_offset, trailer.table_length
    if offset != (header.pages_end if length else 0) or align_up(length, TRAILER_BYTES) != file_bytes - least:
        raise ImageCorrupt(f"{name}: the trailer is damaged: it says a checksum table of {length} bytes at {offset}")
    if length > table_bytes(header.pages_length, header.page_size):
        raise ImageCorrupt(f"{name}: the trailer is damaged: a checksum table of {length} bytes is too long")
    return trailer


def _read(fd: int, offset: int, length: int, name: str) -> bytes:
    """Read exactly `length` bytes. Raises ImageTruncated and ImageCorrupt."""
    parts = []
    while length:
        try:
            part = os.pread(fd, length, offset)
        except OSError as error:
            raise _read_failed(name, offset, error) from error
        if not part:
            raise ImageTruncated(f"{name} was cut short while it was read")
        parts.append(part)
        offset += len(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _read_failed(name: str, offset: int, error: OSError) -> ImageCorrupt:
    return ImageCorrupt(f"{name}: cannot be read at offset {offset}: {error.strerror}")


def _open_failed(name: str, error: OSError | ValueError) -> OrchError:
    if isinstance(error, ValueError):  # a NUL in the name
        return ImageMissing(f"there is no image {name!r}: {error}")
    match error.errno:
        case errno.EACCES | errno.EPERM:
            return NotPermitted(
                f"orch may not read image {name}: {error.strerror}", hint="an image is for its owner only"
            )
        case errno.ENXIO | errno.ENODEV:
            return NotAnImage(f"{name} is not an orch image: it is a socket or a device")
        case errno.ENOENT | errno.ENOTDIR | errno.ELOOP | errno.ENAMETOOLONG:
            return ImageMissing(f"there is no image {name}: {error.strerror}")
        case _:
            return ImageCorrupt(f"{name}: cannot be opened: {error.strerror}")


def _describe_type(mode: int) -> str:
    names = {
        stat.S_IFDIR: "a directory",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
    }
    return names.get(stat.S_IFMT(mode), "not a regular file")
