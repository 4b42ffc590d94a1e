"""Write an image: metadata first, pages by whoever has them, trailer and header last, then the name."""

from __future__ import annotations

import errno
import os
import sys
import time
from types import TracebackType
from typing import Self
from uuid import UUID, uuid4

from orchestrator.errors import ImageWriteFailed
from orchestrator.image.checksums import DIGEST_BYTES, checksum_extents, digest, table_bytes
from orchestrator.image.extents import align_up
from orchestrator.image.header import MAX_METADATA_BYTES, METADATA_OFFSET, Header
from orchestrator.image.preallocate import preallocate
from orchestrator.image.replacement import Replacement
from orchestrator.image.spool import STANDARD, Spool, compressed, directory, to_pipe
from orchestrator.image.trailer import TRAILER_BYTES, Trailer

_BLANK_BYTES = 8 << 20


class ImageWriter:
    """An image in the making. Nothing has its name before commit(); abort() leaves nothing.

    As a context manager it aborts whatever was not committed. The path "-" is standard output. With a ``level``, the
    image is compressed by zstd. Raises ImageWriteFailed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        architecture: str,
        page_size: int,
        parent: UUID | None = None,
        level: int | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self.image_bytes = 0
        """How long the image has become; known after commit()."""
        self.image_id = uuid4()
        self.header: Header | None = None
        """What the header page will say; known after begin()."""
        self._architecture = architecture
        self._page_size = page_size
        self._parent = parent
        self._level = level
        self._needed_bytes = 0
        try:
            self._file = _place(self.path, level)
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

    def expect(self, size: int) -> None:
        """Have the page cache hold about ``size`` bytes of the image already, so that to fill them later is but a copy.

        Takes memory from the machine at a time when nobody waits. Does less where room is short: begin() tells.
        """
        blank = bytes(min(size, _BLANK_BYTES))
        at = 0
        try:
            while at < size:
                at += os.pwrite(self.fd, blank[: size - at], at)
        except OSError:
            os.ftruncate(self.fd, 0)

    def begin(self, metadata: bytes, page_bytes: int) -> int:
        """Reserve room for everything, write the metadata, and return the file offset of the page data."""
        if self.header is not None or self.fd < 0:
            raise RuntimeError("begin() comes once, before commit() and abort()")
        if page_bytes < 0 or page_bytes % self._page_size:
            raise ValueError(f"{page_bytes} bytes of page data are no multiple of the page size {self._page_size}")
        if len(metadata) > MAX_METADATA_BYTES:
            raise ImageWriteFailed(
                f"cannot write image {self.path}: its metadata would take {len(metadata)} bytes,"
                f" an image holds at most {MAX_METADATA_BYTES}"
            )
        header = Header(
            architecture=self._architecture,
            page_size=self._page_size,
            image_id=self.image_id,
            parent_id=self._parent,
            created_unix_ns=time.time_ns(),
            metadata_length=len(metadata),
            metadata_checksum=digest(metadata),
            pages_offset=align_up(METADATA_OFFSET + len(metadata), self._page_size),
            pages_length=page_bytes,
        )
        header.encode()  # says now what is wrong with it, not at the end
        self._needed_bytes = header.pages_end + align_up(table_bytes(page_bytes), TRAILER_BYTES) + TRAILER_BYTES
        try:
            preallocate(self.fd, self._needed_bytes)
            self._write(metadata, METADATA_OFFSET)
        except OSError as error:
            raise self.failed(error) from error
        self.header = header
        return header.pages_offset

    def commit(self, *, durable: bool = True, checksums: bool = False) -> None:
        """Finish the image and rename it over the target.

        With `durable` it is on the disk when this returns. With `checksums` the page data is read once more
        (about 0.1 s a GiB from the page cache) and gets a table that verification can use. On failure
        the image is aborted, and what had the name before still has it.
        """
        if self.header is None or self.fd < 0:
            raise RuntimeError("commit() comes once, after begin()")
        try:
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
        page = header.encode()
        end = header.pages_end
        table = checksum_extents(self.fd, header.pages_offset, header.pages_length) if checksums else b""
        trailer_offset = end + align_up(len(table), TRAILER_BYTES)
        trailer = Trailer(
            total_length=trailer_offset + TRAILER_BYTES,
            image_id=header.image_id,
            header_checksum=page[-DIGEST_BYTES:],
            table_offset=end if checksums else 0,
            table_length=len(table),
            table_checksum=digest(table) if checksums else bytes(DIGEST_BYTES),
        )
        if table:
            self._write(table, end)
        os.ftruncate(self.fd, trailer.total_length)
        self._write(trailer.encode(), trailer_offset)
        self._write(page, 0)

    def abort(self) -> None:
        """Give up: close the descriptor and remove the unfinished file. May be called again, and after commit()."""
        self._file.discard()

    def failed(self, error: OSError) -> ImageWriteFailed:
        """Return the error to raise when writing this image failed with `error`, also in a task."""
        reason = error.strerror or str(error)
        if error.errno == errno.ELOOP:
            reason = "it is a symbolic link"
        elif error.errno == errno.EEXIST:
            reason = "it exists and is not a regular file"
        name = "to standard output" if self.path == STANDARD else self.path
        return ImageWriteFailed(f"cannot write image {name}: {reason}", hint=self._hint(error.errno))

    def _hint(self, number: int | None) -> str | None:
        parent = os.path.dirname(self.path) or os.curdir
        spooled = self.path == STANDARD or self._level is not None
        match number:
            case errno.ENOSPC if spooled:
                return (
                    f"an image that is sent or compressed takes {_mebibytes(self._needed_bytes)} in"
                    f" {directory()} first: free them, or set TMPDIR"
                )
            case errno.ENOSPC:
                return f"free {_mebibytes(self._needed_bytes)} on the file system of {parent}, or write elsewhere"
            case errno.EPIPE:
                return "whatever reads it has ended; the job is as it was"
            case errno.EDQUOT:
                return f"the disk quota leaves no room for {_mebibytes(self._needed_bytes)} in {parent}"
            case errno.EFBIG:
                return (
                    f"the image takes {_mebibytes(self._needed_bytes)}: more than the file size limit"
                    " (ulimit -f) or the file system allows"
                )
            case errno.EROFS:
                return f"{parent} is mounted read-only; write the image elsewhere"
            case errno.EACCES | errno.EPERM:
                return f"make {parent} writable for orch, or write the image elsewhere"
            case errno.ENOENT | errno.ENOTDIR:
                return f"create the directory {parent} first"
            case errno.EISDIR | errno.ELOOP | errno.EEXIST:
                return "name a new file, or an image to be replaced"
            case _:
                return None

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


def _place(path: str, level: int | None) -> Replacement | Spool:
    if path == STANDARD:
        return to_pipe(sys.stdout.fileno(), level)
    return Replacement(path) if level is None else compressed(path, level)


def _mebibytes(count: int) -> str:
    return f"{-(-count // (1 << 20))} MiB"
