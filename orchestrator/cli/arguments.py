"""The parser that the verbs share: its errors are orch's own."""

from __future__ import annotations

import argparse
import os
from typing import NoReturn

from orchestrator.errors import UsageError

TCP: dict[str, frozenset[str]] = {
    "refuse": frozenset(),
    "keep": frozenset({"tcp-keep"}),
    "close": frozenset({"tcp"}),
    "close-all": frozenset({"tcp", "tcp-all"}),
}
"""What is done with TCP connections that lead outside: the outside resources that this allows."""


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


def add_key(parser: argparse.ArgumentParser) -> None:
    """Let a verb that reads an image take private keys."""
    parser.add_argument(
        "--key",
        action="append",
        metavar="FILE",
        help="a private key that opens the image if it is encrypted; may be repeated; ORCH_KEY when not given",
    )


def given_keys(option: list[str] | None, variable: str) -> tuple[str, ...]:
    """Return the keys of an option; if it is not there, that of an environment variable, if there is one."""
    if option is not None:
        return tuple(option)
    named = os.environ.get(variable)
    return (named,) if named else ()


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
