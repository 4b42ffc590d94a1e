"""The parser that the verbs share: its errors are orch's own."""

from __future__ import annotations

import argparse
from typing import NoReturn

from orchestrator.errors import UsageError


class Parser(argparse.ArgumentParser):
    """One verb's parser."""

    def __init__(self, verb: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=f"orch {verb}",
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog.removeprefix('orch ')}: {message}", hint=f"'{self.prog} --help' tells more")


def comma_list(text: str) -> list[str]:
    """Split "pid,net" into its words."""
    return [word for word in text.split(",") if word]


def seconds(text: str) -> float:
    """Read a time-out."""
    value = float(text)
    if not 0 < value < 1e6:
        raise ValueError
    return value


def signal_number(text: str) -> int:
    """Read "TERM", "SIGTERM" or "15"."""
    import signal

    if text.isdecimal():
        return int(signal.Signals(int(text)))
    name = text.upper()
    name = name if name.startswith("SIG") else f"SIG{name}"
    if name not in signal.Signals.__members__:
        raise ValueError
    return int(signal.Signals[name])
