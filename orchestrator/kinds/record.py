"""What all records of an image have in common."""

from __future__ import annotations

import os
from typing import NamedTuple

import msgspec


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A record of an image; subclasses in unions are told apart by ``tag``."""


def portable_path(path: str) -> str:
    """Return a path as records have it. One that is not UTF-8 becomes NUL and its bytes, each as one character."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "\0" + os.fsencode(path).decode("latin-1")
    return path


def native_path(path: str) -> str:
    """Return a record's path as the system calls take it."""
    return os.fsdecode(path[1:].encode("latin-1")) if path.startswith("\0") else path


def shown_path(path: str) -> str:
    """Return a record's path for people; bytes that are not UTF-8 as escapes."""
    return path[1:].encode("latin-1").decode("utf-8", "backslashreplace") if path.startswith("\0") else path


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
