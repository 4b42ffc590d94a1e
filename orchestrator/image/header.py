"""The header page of an image. See docs/image-format.md for the offsets."""

from __future__ import annotations

import struct
from typing import Final
from uuid import UUID

import msgspec

from orchestrator.errors import ImageArchitecture, ImageCorrupt, ImageTruncated, ImageVersion, NotAnImage
from orchestrator.image.checksums import DIGEST_BYTES, digest
from orchestrator.image.places import ONE_IMAGE

MAGIC: Final = b"ORCHCKPT"
FORMAT_VERSION: Final = 1
HEADER_BYTES: Final = 4096
METADATA_OFFSET: Final = HEADER_BYTES
MAX_METADATA_BYTES: Final = 256 << 20
"""Enough for millions of records; a bound on what an untrusted file can make orch read into memory."""
MIN_PAGE_SIZE: Final = 4096
MAX_PAGE_SIZE: Final = 1 << 20
MAX_FILE_BYTES: Final = (1 << 63) - 1
"""Offsets of files are signed: off_t."""

# magic, format version, header size, flags, architecture, page size, reserved, id, parent id,
# created, metadata offset, metadata length, metadata checksum, pages offset, pages length
_FIELDS: Final = struct.Struct("<8sIIQ16sII16s16sQQQ16sQQ")
_CHECKSUM_AT: Final = HEADER_BYTES - DIGEST_BYTES
assert _FIELDS.size == 136

_NO_PARENT: Final = bytes(16)

FLAG_CHAIN: Final = 1 << 0
"""Some of its pages lie in other images."""
_KNOWN_FLAGS: Final = FLAG_CHAIN


class Header(msgspec.Struct, frozen=True):
    """What the first page of an image says. Offsets are from the start of the file, in bytes."""

    architecture: str
    """The machine's name as uname(2) spells it."""
    page_size: int
    image_id: UUID
    parent_id: UUID | None
    created_unix_ns: int
    metadata_length: int
    metadata_checksum: bytes
    pages_offset: int
    pages_length: int
    metadata_offset: int = METADATA_OFFSET
    format_version: int = FORMAT_VERSION
    header_size: int = HEADER_BYTES
    flags: int = 0

    @property
    def has_chain(self) -> bool:
        """Whether some of its pages lie in other images."""
        return bool(self.flags & FLAG_CHAIN)

    @property
    def pages_end(self) -> int:
        """Return the file offset behind the last byte of page data."""
        return self.pages_offset + self.pages_length

    def encode(self) -> bytes:
        """Return the header page, its checksum included."""
        architecture = self.architecture.encode("ascii")
        if not 0 < len(architecture) <= 16:
            raise ValueError(f"architecture {self.architecture!r} does not fit into 16 bytes")
        fields = _FIELDS.pack(
            MAGIC,
            self.format_version,
            self.header_size,
            self.flags,
            architecture,
            self.page_size,
            0,
            self.image_id.bytes,
            self.parent_id.bytes if self.parent_id else _NO_PARENT,
            self.created_unix_ns,
            self.metadata_offset,
            self.metadata_length,
            self.metadata_checksum,
            self.pages_offset,
            self.pages_length,
        )
        body = fields.ljust(_CHECKSUM_AT, b"\0")
        return body + digest(body)

    @classmethod
    def decode(cls, page: bytes, *, name: str = "the image") -> Header:
        """Parse the first HEADER_BYTES of a file; `name` is what messages call it.

        Raises NotAnImage, ImageTruncated, ImageCorrupt, ImageVersion. Does not ask whether the image
        fits this machine (require_machine does) or its own file (the reader does).
        """
        if not page or not page.startswith(MAGIC[: len(page)]):
            what = "it is empty" if not page else "it does not start as one"
            raise NotAnImage(f"{name} is not an orch image: {what}")
        if len(page) < HEADER_BYTES:
            raise ImageTruncated(f"{name} is cut short: {len(page)} of the header's {HEADER_BYTES} bytes are there")
        body = page[:_CHECKSUM_AT]
        # Magic, version and checksum keep their places in every version, so damage to the
        # version is told apart from another version.
        if digest(body) != page[_CHECKSUM_AT:HEADER_BYTES]:
            raise ImageCorrupt(f"{name}: the header is damaged: its checksum does not match")
        (
            _,
            version,
            header_size,
            flags,
            architecture,
            page_size,
            reserved,
            image_id,
            parent_id,
            created,
            metadata_offset,
            metadata_length,
            metadata_checksum,
            pages_offset,
            pages_length,
        ) = _FIELDS.unpack_from(body)
        if version != FORMAT_VERSION:
            raise ImageVersion(
                f"{name} has format version {version}, this orch reads version {FORMAT_VERSION}",
                hint=f"use {'a newer' if version > FORMAT_VERSION else 'an older'} orch for this image",
            )
        if flags & ~_KNOWN_FLAGS:
            raise ImageVersion(
                f"{name} uses features that this orch does not know (flags {flags & ~_KNOWN_FLAGS:#x})",
                hint="use a newer orch for this image",
            )
        header = cls(
            architecture=_decode_architecture(architecture, name),
            page_size=page_size,
            image_id=UUID(bytes=image_id),
            parent_id=UUID(bytes=parent_id) if parent_id != _NO_PARENT else None,
            created_unix_ns=created,
            metadata_length=metadata_length,
            metadata_checksum=metadata_checksum,
            pages_offset=pages_offset,
            pages_length=pages_length,
            metadata_offset=metadata_offset,
            format_version=version,
            header_size=header_size,
            flags=flags,
        )
        if reserved or any(body[_FIELDS.size :]):
            raise ImageCorrupt(f"{name}: the header's reserved bytes are not zero")
        header._check(name)
        return header

    def _check(self, name: str) -> None:
        """Raise ImageCorrupt for numbers that contradict each other. Python's integers do not overflow."""
        size = self.page_size
        end = self.metadata_offset + self.metadata_length
        problem = None
        if self.header_size != HEADER_BYTES:
            problem = f"a header of {self.header_size} bytes instead of {HEADER_BYTES}"
        elif not MIN_PAGE_SIZE <= size <= MAX_PAGE_SIZE or size & (size - 1):
            problem = f"page size {size}"
        elif self.metadata_offset != METADATA_OFFSET:
            problem = f"metadata at offset {self.metadata_offset} instead of {METADATA_OFFSET}"
        elif self.metadata_length > MAX_METADATA_BYTES:
            problem = f"metadata of {self.metadata_length} bytes, more than the limit of {MAX_METADATA_BYTES}"
        elif self.pages_offset % size or self.pages_offset < end:
            problem = f"page data at offset {self.pages_offset}, with metadata up to {end}"
        elif self.pages_length % size:
            problem = f"page data of {self.pages_length} bytes, no multiple of the page size {size}"
        elif self.flags & FLAG_CHAIN and self.parent_id is None:
            problem = "pages in other images, and no parent"
        elif self.pages_length > ONE_IMAGE:
            problem = f"page data of {self.pages_length} bytes, more than the limit of {ONE_IMAGE}"
        elif self.pages_end > MAX_FILE_BYTES:
            problem = f"page data up to offset {self.pages_end}, beyond what a file can hold"
        if problem:
            raise ImageCorrupt(f"{name}: the header is damaged: it says {problem}")

    def require_machine(self, architecture: str, page_size: int, *, name: str = "the image") -> None:
        """Raise ImageArchitecture unless the image was written on such a machine."""
        if self.architecture != architecture:
            raise ImageArchitecture(
                f"{name} was written on {self.architecture}, this machine is {architecture}",
                hint=f"restore it on a machine of architecture {self.architecture}",
            )
        if self.page_size != page_size:
            raise ImageArchitecture(
                f"{name} was written with pages of {self.page_size} bytes, this kernel's have {page_size}",
                hint="restore it under a kernel with the same page size",
            )


def _decode_architecture(field: bytes, name: str) -> str:
    text = field.rstrip(b"\0")
    if not text or not text.isascii() or not text.decode("ascii").isprintable():
        raise ImageCorrupt(f"{name}: the header is damaged: it says architecture {field!r}")
    return text.decode("ascii")
