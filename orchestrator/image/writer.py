"""Write an image: metadata first, pages by whoever has them, trailer and header last, then the name."""

from __future__ import annotations

import errno
import os
from types import TracebackType
from typing import Self
from uuid import UUID, uuid4

from orchestrator.errors import ImageWriteFailed
from orchestrator.image.checksums import checksum_extents, table_bytes
from orchestrator.image.extents import align_up
from orchestrator.image.failure import write_failed
from orchestrator.image.frame import plan_header, plan_trailer
from orchestrator.image.header import METADATA_OFFSET, Header
from orchestrator.image.preallocate import preallocate
from orchestrator.image.replacement import Replacement
from orchestrator.image.trailer import TRAILER_BYTES
from orchestrator.image.writeback import begin_writeback

_BLANK_BYTES = 8 << 20


def fill_with_blanks(fd: int, size: int) -> None:
    """Write zeros to an empty file, or nothing if there is no room for them."""
    blank = bytes(min(size, _BLANK_BYTES))
    at = 0
    try:
        while at < size:
            at += os.pwrite(fd, blank[: size - at], at)
    except OSError:
        os.ftruncate(fd, 0)


class ImageWriter:
    """An image in the making. Nothing has its name before commit(); abort() leaves nothing.

    As a context manager it aborts whatever was not committed. Raises ImageWriteFailed. An image that goes through a
    pipe, is compressed or encrypted is made by stream.ImageStream.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        architecture: str,
        page_size: int,
        parent: UUID | None = None,
        image_id: UUID | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self.image_bytes = 0
        """How long the image has become; known after commit()."""
        self.image_id = image_id or uuid4()
        self.header: Header | None = None
        """What the header page will say; known after begin()."""
        self._architecture = architecture
        self._page_size = page_size
        self._parent = parent
        self._needed_bytes = 0
        try:
            self._file = Replacement(self.path)
        except OSError as error:
            raise self.failed(error) from error

    @property
    def fd(self) -> int:
        """The unfinished file, open for reading and writing; -1 after commit() and abort().

        Tasks pwrite(2) their pages to it in any order, at planned offsets. A descriptor that was given away must be
        closed before commit().
        """
        return self._file.fd

    @property
    def pages_offset(self) -> int:
        """Where the page data begins in the file; known after begin()."""
        if self.header is None:
            raise RuntimeError("begin() comes first")
        return self.header.pages_offset

    def scrap(self) -> ImageWriter:
        """Return an image in the making at the same place that nobody will see; it must not be committed."""
        return ImageWriter(self.path, architecture=self._architecture, page_size=self._page_size)

    def expect(self, size: int) -> None:
        """Have the page cache hold about ``size`` bytes of the image already, so that to fill them later is but a copy.

        Takes memory from the machine at a time when nobody waits. Does less where room is short: begin() tells.
        """
        fill_with_blanks(self.fd, size)

    def begin(self, metadata: bytes, page_bytes: int, *, chained: bool = False) -> int:
        """Reserve room for everything, write the metadata, and return the file offset of the page data.

        ``chained``: some pages lie in other images, as the metadata says.
        """
        if self.header is not None or self.fd < 0:
            raise RuntimeError("begin() comes once, before commit() and abort()")
        header = plan_header(
            self.path, metadata, page_bytes, architecture=self._architecture, page_size=self._page_size,
            image_id=self.image_id, parent=self._parent, chained=chained,
        )  # fmt: skip
        self._needed_bytes = header.pages_end + align_up(table_bytes(page_bytes), TRAILER_BYTES) + TRAILER_BYTES
        try:
            preallocate(self.fd, self._needed_bytes)
            self._write(metadata, METADATA_OFFSET)
        except OSError as error:
            raise self.failed(error) from error
        self.header = header
        return header.pages_offset

    def commit(self, *, durable: bool = True, checksums: bool = True) -> None:
        """Finish the image and rename it over the target.

        With `durable` it is on the disk when this returns. With `checksums` the page data is read once more
        (about 0.1 s a GiB from the page cache, meanwhile the disk is busy with it) and gets a table that verification
        can use. On failure the image is aborted, and what had the name before still has it.
        """
        if self.header is None or self.fd < 0:
            raise RuntimeError("commit() comes once, after begin()")
        try:
            if durable and checksums:
                begin_writeback(self.fd)
            self._finish(self.header, checksums)
            self.image_bytes = self._file.publish(durable=durable)
        except (OSError, EOFError) as error:
            self.abort()
            if isinstance(error, EOFError):
                error = OSError(errno.EIO, "the page data was cut short by somebody else")
            raise self.failed(error) from error
        except BaseException:
            self.abort()
            raise

    def _finish(self, header: Header, checksums: bool) -> None:
        table = checksum_extents(self.fd, header.pages_offset, header.pages_length) if checksums else b""
        trailer = plan_trailer(header, table)
        if table:
            self._write(table, header.pages_end)
        os.ftruncate(self.fd, trailer.total_length)
        self._write(trailer.encode(), trailer.total_length - TRAILER_BYTES)
        self._write(header.encode(), 0)

    def abort(self) -> None:
        """Give up: close the descriptor and remove the unfinished file. May be called again, and after commit()."""
        self._file.discard()

    def failed(self, error: OSError) -> ImageWriteFailed:
        """Return the error to raise when writing this image failed with `error`, also in a task."""
        return write_failed(self.path, error, self._needed_bytes)

    def _write(self, data: bytes, offset: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self.fd, view, offset)
            view = view[written:]
            offset += written

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.abort()
