"""Verify an image as a whole."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from orchestrator.image.reader import ImageFile


class Verification(msgspec.Struct, frozen=True):
    """What of an image was compared with its checksums; header and trailer were when it was opened."""

    metadata_bytes: int
    page_bytes: int
    """0 with `has_checksums` false: the page data cannot be verified."""
    has_checksums: bool


def verify(image: ImageFile, progress: Callable[[int], None] | None = None) -> Verification:
    """Compare metadata and page data with their checksums. Raises ImageCorrupt and ImageTruncated.

    `progress` is called with the bytes of page data compared so far.
    """
    metadata = image.metadata
    return Verification(len(metadata), image.verify_pages(progress), image.has_checksums)
