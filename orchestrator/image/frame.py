"""What stands before and behind the page data of an image: made from what is known before the first page is written."""

from __future__ import annotations

import time
from uuid import UUID

from orchestrator.errors import ImageWriteFailed
from orchestrator.image.checksums import DIGEST_BYTES, digest
from orchestrator.image.extents import align_up
from orchestrator.image.header import FLAG_CHAIN, MAX_METADATA_BYTES, METADATA_OFFSET, Header
from orchestrator.image.trailer import TRAILER_BYTES, Trailer


def plan_header(
    path: str,
    metadata: bytes,
    page_bytes: int,
    *,
    architecture: str,
    page_size: int,
    image_id: UUID,
    parent: UUID | None,
    chained: bool = False,
) -> Header:
    """Return the header of an image with such metadata and so much page data. Raises ImageWriteFailed."""
    if page_bytes < 0 or page_bytes % page_size:
        raise ValueError(f"{page_bytes} bytes of page data are no multiple of the page size {page_size}")
    if len(metadata) > MAX_METADATA_BYTES:
        raise ImageWriteFailed(
            f"cannot write image {path}: its metadata would take {len(metadata)} bytes,"
            f" an image holds at most {MAX_METADATA_BYTES}"
        )
    header = Header(
        architecture=architecture,
        page_size=page_size,
        image_id=image_id,
        parent_id=parent,
        created_unix_ns=time.time_ns(),
        metadata_length=len(metadata),
        metadata_checksum=digest(metadata),
        pages_offset=align_up(METADATA_OFFSET + len(metadata), page_size),
        pages_length=page_bytes,
        flags=FLAG_CHAIN if chained else 0,
    )
    header.encode()  # says now what is wrong with it, not at the end
    return header


def plan_trailer(header: Header, table: bytes) -> Trailer:
    """Return the trailer of an image with this checksum table; an empty one is none."""
    return Trailer(
        total_length=header.pages_end + align_up(len(table), TRAILER_BYTES) + TRAILER_BYTES,
        image_id=header.image_id,
        header_checksum=header.encode()[-DIGEST_BYTES:],
        table_offset=header.pages_end if table else 0,
        table_length=len(table),
        table_checksum=digest(table) if table else bytes(DIGEST_BYTES),
    )
