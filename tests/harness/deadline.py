"""How long a test waits for an event before it calls it missing."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        return cls(time.monotonic() + seconds)

    @property
    def seconds_left(self) -> float:
        return max(0.0, self.at - time.monotonic())

    @property
    def ms_left(self) -> int:
        return int(self.seconds_left * 1000)

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self.at
