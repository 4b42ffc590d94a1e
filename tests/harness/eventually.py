"""Waiting for what gives no event: an answer of a server over its own protocol."""

from __future__ import annotations

import select
from collections.abc import Callable

from harness.deadline import Deadline


def eventually(holds: Callable[[], bool], seconds: float, what: str) -> None:
    """Ask again and again until it holds, or fail."""
    deadline = Deadline.after(seconds)
    while not holds():
        if deadline.passed:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        select.select([], [], [], 0.02)
