"""Being told to end while a job is held: clean up first."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import NoReturn

told: list[int] = []
"""The signals that have told us to end."""


def unwind_on_termination() -> None:
    """Make SIGTERM and SIGHUP unwind the stack, as SIGINT does, so that no job stays frozen and no file half-written.

    A signal that whoever started us has ignored stays ignored.
    """
    for signo in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signo) == signal.SIG_DFL:
            signal.signal(signo, _unwind)


def _unwind(signo: int, _frame: FrameType | None) -> NoReturn:
    told.append(signo)
    sys.exit(128 + signo)
