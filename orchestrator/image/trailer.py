"""The trailer page of an image: its last 4096 bytes, the proof that it was finished."""

from __future__ import annotations

import struct
from typing import Final
from uuid import UUID

import msgspec

from orchestrator.errors import ImageCorrupt, ImageTruncated
from orchestrator.image.checksums import DIGEST_BYTES, digest

TRAILER_MAGIC: Final = b"ORCHTAIL"
TRAILER_BYTES: Final = 4096

# magic, total length, image id, header checksum, checksum table: offset, length, checksum
_FIELDS: Final = struct.Struct("<8sQ16s16sQQ16s")
_CHECKSUM_AT: Final = TRAILER_BYTES - DIGEST_BYTES
assert _FIELDS.size == 80


class Trailer(msgspec.Struct, frozen=True):
    """What the last page of an image says. Offsets are from the start of the file, in bytes."""

    total_length: int
    image_id: UUID
    header_checksum: bytes
    """The last 16 bytes of the header page."""
    table_offset: int = 0
    """Where the checksum table is; 0 if the image has none."""
    table_length: int = 0
    table_checksum: bytes = bytes(DIGEST_BYTES)

    def encode(self) -> bytes:
        """Return the trailer page, its checksum included."""
        fields = _FIELDS.pack(
            TRAILER_MAGIC,
            self.total_length,
            self.image_id.bytes,
            self.header_checksum,
            self.table_offset,
            self.table_length,
            self.table_checksum,
        )
        body = fields.ljust(_CHECKSUM_AT, b"\0")
        return body + digest(body)

    @classmethod
    def decode(cls, page: bytes, *, name: str = "the image") -> Trailer:
        """Parse the last TRAILER_BYTES of a file. Raises ImageTruncated and ImageCorrupt."""
        if len(page) != TRAILER_BYTES or not page.startswith(TRAILER_MAGIC):
            raise ImageTruncated(
                f"{name} does not end with a trailer: it was cut short, overwritten or added to",
                hint="this image was never finished or is damaged; use another one",
            )
        body = page[:_CHECKSUM_AT]
        if digest(body) != page[_CHECKSUM_AT:]:
            raise ImageCorrupt(f"{name}: the trailer is damaged: its checksum does not match")
        if any(body[_FIELDS.size :]):
            raise ImageCorrupt(f"{name}: the trailer's reserved bytes are not zero")
        _, total, image_id, header_checksum, table_offset, table_length, table_checksum = _FIELDS.unpack_from(body)
        return cls(total, UUID(bytes=image_id), header_checksum, table_offset, table_length, table_checksum)
