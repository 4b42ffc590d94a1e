"""How a capture says that it cannot: what a socket holds is beyond what can be rebuilt."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TypeVar

from orchestrator.kinds.files.kind import FdView
from orchestrator.kinds.scope import Scope

T = TypeVar("T")


class Refused(Exception):
    """A socket in a state that cannot be rebuilt; the text says why."""

    def __init__(self, reason: str, hint: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


def record_or_note(
    view: FdView,
    scope: Scope,
    noun: str,
    capture: Callable[[FdView, Scope, socket.socket], T],
    hint: str | None = None,
) -> T | None:
    """Return the record that ``capture`` makes of a socket; what it refuses is noted, with ``hint`` if it has none."""
    try:
        return capture(view, scope, view.sock)
    except Refused as refusal:
        scope.unsupported(view.pid, view.what, f"{noun}: {refusal.reason}", refusal.hint or hint)
        return None
