"""Where page data goes: page-aligned extents, planned before the first page is written."""

from __future__ import annotations


def align_up(value: int, alignment: int) -> int:
    """Round up to a multiple of `alignment`, which is a power of two."""
    return (value + alignment - 1) & ~(alignment - 1)


class PageLayout:
    """Hands out page-aligned extents, one after the other, from the start of the page data.

    Offsets are relative to the start of the page data, because where that is depends on the length
    of the metadata, and the metadata names the extents.
    """

    def __init__(self, page_size: int) -> None:
        if page_size <= 0 or page_size & (page_size - 1):
            raise ValueError(f"page size {page_size} is not a power of two")
        self.page_size = page_size
        self._length = 0

    @property
    def length(self) -> int:
        """Bytes of page data placed so far: a multiple of the page size, what the writer's `begin` wants."""
        return self._length

    def place(self, nbytes: int) -> int:
        """Reserve an extent for `nbytes` bytes and return its offset. An empty extent takes no room."""
        if nbytes < 0:
            raise ValueError(f"an extent cannot hold {nbytes} bytes")
        offset = self._length
        self._length += align_up(nbytes, self.page_size)
        return offset
