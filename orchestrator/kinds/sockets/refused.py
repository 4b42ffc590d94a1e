"""How a capture says that it cannot: what a socket holds is beyond what can be rebuilt."""

from __future__ import annotations


class Refused(Exception):
    """A socket in a state that cannot be rebuilt; the text says why."""

    def __init__(self, reason: str, hint: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
