"""An image that is written in order, from its first byte to its last: to a pipe, compressed, encrypted, or all of it.

Nobody seeks, and there is no second copy of it. What must be written while the job stands still, and comes later in the
image, waits in a spool.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple, Self
from uuid import UUID, uuid4

from orchestrator.errors import ImageWriteFailed
from orchestrator.image import sealing
from orchestrator.image.checksums import BlockSums, table_bytes
from orchestrator.image.extents import align_up
from orchestrator.image.failure import write_failed
from orchestrator.image.frame import plan_header, plan_trailer
from orchestrator.image.header import METADATA_OFFSET, Header
from orchestrator.image.output import Alarms, Output
from orchestrator.image.packing import Block, Packing, pack, pad
from orchestrator.image.replacement import Replacement
from orchestrator.image.spool import STANDARD, in_memory, nameless
from orchestrator.image.trailer import TRAILER_BYTES
from orchestrator.image.writer import ImageWriter, fill_with_blanks

if TYPE_CHECKING:
    from orchestrator.image.keys import Recipient

SOURCE_BYTES: Final = 8 << 20
"""The most that one source may give."""
_GAP: Final = bytes(1 << 20)
_COPY_BYTES: Final = 1 << 20


class Source(NamedTuple):
    """Where a part of the page data comes from."""

    at: int
    """Offset from the start of the page data, in bytes."""
    length: int
    read: Callable[[memoryview], object]
    """Fills a buffer of that length."""


class ImageStream:
    """An image that goes out in order, by send(). The path "-" is standard output.

    It has the face of an ImageWriter: ``fd`` is the spool, which is written to as to an image in the making. Raises
    ImageWriteFailed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        architecture: str,
        page_size: int,
        parent: UUID | None = None,
        packing: Packing | None = None,
        recipients: Sequence[Recipient] = (),
    ) -> None:
        self.path = os.fspath(path)
        self.image_bytes = 0
        """How long what went out has become; known after commit()."""
        self.image_id = uuid4()
        self.header: Header | None = None
        self._architecture = architecture
        self._page_size = page_size
        self._parent = parent
        self._packing = packing
        self._recipients = recipients
        self._metadata = b""
        self._spool = self._aside = -1
        self._needed_bytes = 0
        try:
            self._file = None if self.path == STANDARD else Replacement(self.path)
        except OSError as error:
            raise self.failed(error) from error

    @property
    def is_secret(self) -> bool:
        """Whether it is encrypted: then nothing of it may be on a disk in the clear, and the spool is in memory."""
        return bool(self._recipients)

    @property
    def fd(self) -> int:
        """The spool, made when it is first asked for. Page data is at the same offsets as in the image."""
        if self._spool < 0:
            try:
                self._spool = in_memory() if self.is_secret else nameless()
            except OSError as error:
                raise self.failed(error) from error
        return self._spool

    @property
    def pages_offset(self) -> int:
        """Where the page data begins; known after begin()."""
        if self.header is None:
            raise RuntimeError("begin() comes first")
        return self.header.pages_offset

    def scrap(self) -> ImageStream:
        """Return a stream like this one that nobody will see; it must not be committed."""
        return ImageStream(STANDARD, architecture=self._architecture, page_size=self._page_size)

    def expect(self, size: int) -> None:
        """Have the spool hold about ``size`` bytes already. See ImageWriter.expect()."""
        if size and not self.is_secret:
            fill_with_blanks(self.fd, size)

    def begin(self, metadata: bytes, page_bytes: int, *, chained: bool = False) -> int:
        """Plan the image, and return the offset of the page data. See ImageWriter.begin()."""
        if self.header is not None:
            raise RuntimeError("begin() comes once")
        self.header = plan_header(
            self.path, metadata, page_bytes, architecture=self._architecture, page_size=self._page_size,
            image_id=self.image_id, parent=self._parent, chained=chained,
        )  # fmt: skip
        self._metadata = metadata
        self._needed_bytes = self.header.pages_end
        return self.header.pages_offset

    def send(
        self,
        sources: Iterable[Source],
        *,
        checksums: bool = True,
        aside: bool = False,
        alarms: Alarms | None = None,
    ) -> None:
        """Let the image go out, with page data from ``sources``, which ascend, and otherwise from the spool.

        While the reader is waited for, ``alarms`` may end it.

        With ``aside``, what may make the job wait is left to commit(): then it waits in a nameless file as it will
        go out, compressed and encrypted.
        """
        assert self.header is not None
        try:
            if self._file is None and aside:
                self._aside = nameless()
            target = self._aside if self._aside >= 0 else self._target
            with contextlib.closing(Output(target, alarms)) as output:
                self.image_bytes = self._write(self.header, sources, output, checksums)
        except OSError as error:
            raise self.failed(error) from error
        self._let_spool_go()

    def commit(self, *, durable: bool = True, checksums: bool = True) -> None:  # noqa: ARG002  send() had it
        """See that the image that went out by send() is where it belongs: a file gets its name.

        With `durable` it is then on the disk. On failure it is aborted.
        """
        try:
            if self._aside >= 0:
                with contextlib.closing(Output(self._target)) as output:
                    _copy(self._aside, output)
            if self._file is not None:
                self._file.publish(durable=durable)
        except OSError as error:
            raise self.failed(error) from error
        finally:
            self.abort()

    @property
    def _target(self) -> int:
        return sys.stdout.fileno() if self._file is None else self._file.fd

    def _write(self, header: Header, sources: Iterable[Source], output: Output, checksums: bool) -> int:
        blocks = self._blocks(header, sources, checksums)
        if self._packing is not None:
            table = align_up(table_bytes(header.pages_length), TRAILER_BYTES) if checksums else 0
            blocks = pack(blocks, header.pages_end + table + TRAILER_BYTES, self._packing)
            if self._recipients:
                blocks = pad(blocks, sealing.UNIT_BYTES)
        if self._recipients:
            sealing.seal(blocks, output.write, self._recipients)
        else:
            for block in blocks:
                output.write(block)
        return output.size

    def _blocks(self, header: Header, sources: Iterable[Source], checksums: bool) -> Iterator[Block]:
        """Yield the bytes of the image. A block must be used before the next is asked for."""
        yield header.encode()
        yield self._metadata
        yield bytes(header.pages_offset - METADATA_OFFSET - len(self._metadata))
        sums = BlockSums() if checksums else None
        for block in self._pages(header, sources):
            if sums is not None:
                sums.add(block)
            yield block
        table = sums.table() if sums is not None else b""
        yield table.ljust(align_up(len(table), TRAILER_BYTES), b"\0")
        yield plan_trailer(header, table).encode()

    def _pages(self, header: Header, sources: Iterable[Source]) -> Iterator[Block]:
        view = memoryview(bytearray(min(SOURCE_BYTES, header.pages_length)))
        at = 0
        for source in sources:
            if source.at < at:
                raise RuntimeError(f"page data at {source.at} is there already: up to {at}")
            yield from self._gap(header, at, source.at, view)
            part = view[: source.length]
            source.read(part)
            yield part
            at = source.at + source.length
        yield from self._gap(header, at, header.pages_length, view)

    def _gap(self, header: Header, at: int, end: int, view: memoryview) -> Iterator[Block]:
        """Yield what was written to the spool; what nobody wrote reads as zeros."""
        while at < end:
            if self._spool < 0:
                block: Block = _GAP[: end - at]
            else:
                part = view[: end - at]
                got = os.preadv(self._spool, [part], header.pages_offset + at)
                block = part[:got] if got else _GAP[: end - at]
            yield block
            at += len(block)

    def abort(self) -> None:
        """Give up, or clear away. May be called again."""
        self._let_spool_go()
        fd, self._aside = self._aside, -1
        if fd >= 0:
            os.close(fd)
        if self._file is not None:
            self._file.discard()

    def _let_spool_go(self) -> None:
        fd, self._spool = self._spool, -1
        if fd >= 0:
            os.close(fd)

    def failed(self, error: OSError) -> ImageWriteFailed:
        """Return the error to raise when writing this image failed with `error`, also in a task."""
        return write_failed(self.path, error, self._needed_bytes, spooled=self._spool >= 0 or self._aside >= 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.abort()


Writer = ImageWriter | ImageStream


def open_writer(
    path: str,
    *,
    architecture: str,
    page_size: int,
    parent: UUID | None = None,
    packing: Packing | None = None,
    recipients: Sequence[Recipient] = (),
) -> Writer:
    """Begin an image: in place where that is possible, else in order. Raises ImageWriteFailed."""
    if path != STANDARD and packing is None and not recipients:
        return ImageWriter(path, architecture=architecture, page_size=page_size, parent=parent)
    return ImageStream(
        path, architecture=architecture, page_size=page_size, parent=parent, packing=packing, recipients=recipients
    )


def _copy(source: int, output: Output) -> None:
    at = 0
    while block := os.pread(source, _COPY_BYTES, at):
        output.write(block)
        at += len(block)
