"""Where page data lies in a chain of images: the image's number in the upper bits, the offset in the lower.

Image 0 is the one that says so. So a place of a whole image is plainly an offset, and the places of an image become
those of a delta to it by adding one image.
"""

from __future__ import annotations

from typing import Final

_SHIFT: Final = 48
ONE_IMAGE: Final = 1 << _SHIFT
"""What is between a place and the same place as a delta names it. Also the most page data that an image may have."""
MOST_IMAGES: Final = 1 << 15
"""Places are signed 64-bit numbers."""


def number_of(place: int) -> int:
    """Return which image of the chain a place is in."""
    return place >> _SHIFT


def offset_in(place: int) -> int:
    """Return the offset of a place from the start of its image's page data, in bytes."""
    return place & (ONE_IMAGE - 1)
