"""Figures for other programs."""

from __future__ import annotations

import sys
from typing import Any

from orchestrator.errors import UsageError


def write_stats(path: str, figures: Any) -> None:
    """Write figures to a file as JSON, or to the output for "-"."""
    import msgspec

    text = msgspec.json.format(msgspec.json.encode(figures), indent=2) + b"\n"
    if path == "-":
        sys.stdout.write(text.decode())
        return
    try:
        with open(path, "wb") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(f"the statistics cannot be written to {path}: {error.strerror}") from error
