"""What all records of an image have in common."""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A record of an image; subclasses in unions are told apart by ``tag``."""


class Extent(NamedTuple):
    """A run of bytes of a file or memory object that lies in the image's page data."""

    start: int
    """Offset in the object, in bytes."""
    length: int
    """In bytes."""
    at: int
    """Offset from the start of the page data, in bytes, page-aligned."""


class Content(Record, frozen=True):
    """The bytes of a file or memory object. What no extent covers reads as zeros."""

    size: int
    extents: list[Extent]
