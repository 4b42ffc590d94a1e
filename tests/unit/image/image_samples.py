"""Small images with known contents, and ways to damage them."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from orchestrator.image.checksums import digest
from orchestrator.image.header import Header
from orchestrator.image.reader import ImageFile
from orchestrator.image.verify import verify
from orchestrator.image.writer import ImageWriter

MACHINE = os.uname().machine
PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
METADATA = b"metadata " * 700
PAGES = random.Random(1).randbytes(PAGE_SIZE * 5)


@dataclass(frozen=True)
class Sample:
    """An image as it was written."""

    path: Path
    metadata: bytes
    pages: bytes
    image_id: UUID

    def header(self) -> Header:
        return Header.decode(self.path.read_bytes()[:4096])


def write_sample(
    path: Path,
    *,
    metadata: bytes = METADATA,
    pages: bytes = PAGES,
    checksums: bool = True,
    architecture: str = MACHINE,
    page_size: int = PAGE_SIZE,
    parent: UUID | None = None,
) -> Sample:
    with ImageWriter(path, architecture=architecture, page_size=page_size, parent=parent) as writer:
        offset = writer.begin(metadata, len(pages))
        assert os.pwrite(writer.fd, pages, offset) == len(pages)
        writer.commit(durable=False, checksums=checksums)
    return Sample(path, metadata, pages, writer.image_id)


def read_everything(path: Path) -> tuple[bytes, bytes]:
    """Return metadata and page data of an image, after all the checks there are."""
    with ImageFile.open(path) as image:
        verify(image)
        return image.metadata, os.pread(image.fd, image.pages_length, image.pages_offset)


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def flip_bit(path: Path, offset: int, bit: int = 0) -> None:
    overwrite(path, offset, bytes([path.read_bytes()[offset] ^ 1 << bit]))


def forge_header(path: Path, offset: int, data: bytes) -> None:
    """Change bytes of the header and set all checksums right again, as an attacker would."""
    overwrite(path, offset, data)
    header_checksum = digest(path.read_bytes()[:4080])
    overwrite(path, 4080, header_checksum)
    forge_trailer(path, 32, header_checksum)


def forge_trailer(path: Path, offset: int, data: bytes) -> None:
    """Change bytes of the trailer and set its checksum right again."""
    start = path.stat().st_size - 4096
    overwrite(path, start + offset, data)
    overwrite(path, start + 4080, digest(path.read_bytes()[start : start + 4080]))
