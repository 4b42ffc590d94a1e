"""Numbers and names as they are printed."""

from __future__ import annotations

import re

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def size(bytes_: int) -> str:
    """Write a number of bytes for a person."""
    value = float(bytes_)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def printable(text: str) -> str:
    """Write what others have named in one line, without what a terminal would obey."""
    return _UNPRINTABLE.sub(lambda found: f"\\x{ord(found[0]):02x}" if found[0] != "\n" else "\\n", text)
