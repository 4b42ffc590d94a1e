"""The records of pseudo-terminals. See pty(7)."""

from __future__ import annotations

from typing import Literal

from orchestrator.ids import ObjectId
from orchestrator.kinds.record import Record


class Queues(Record, frozen=True):
    """What is on its way through a pseudo-terminal, and what stops it."""

    lines: list[bytes] = []  # noqa: RUF012 - msgspec copies it
    """Typed lines, each as one read returns it; an empty one is an end of file."""
    typed: bytes = b""
    """What was typed behind them; all of it where input does not come in lines."""
    behind: bytes = b""
    """What the line discipline has not looked at yet: it was full."""
    printed: bytes = b""
    """What the slave side wrote and the master has not read."""
    status: int = 0
    """Of packet mode: the TIOCPKT_* bits that the next read of the master returns."""
    stopped: Literal["", "call", "character"] = ""
    """What stopped the slave's output: TCOOFF or the stop character."""
    master_stopped: bool = False


class Terminal(Record, frozen=True, tag="terminal"):
    """What the two sides of a pseudo-terminal share."""

    number: int
    """Its name in devpts, which the restore keeps."""
    devpts: str
    """Where that is mounted."""
    own: bool
    """Whether that mount is the job's own, which the restore makes."""
    slave: Literal["never opened", "open", "closed"]
    settings: bytes
    """struct termios2."""
    locked_settings: bytes
    """struct termios with the bits that nobody may change."""
    size: bytes
    """struct winsize."""
    locked: bool
    packet: bool
    master_exclusive: bool
    slave_exclusive: bool
    uid: int
    gid: int
    mode: int
    """Of the slave's file."""
    queues: Queues


class OutsideTerminal(Record, frozen=True, tag="terminal-outside"):
    """A terminal from outside that controls a session of the job."""

    key: str
    """As its open files have it, which are external ones: "stdio[0]" or "tty[136:3]"."""
    settings: bytes
    """struct termios2; empty if it could not be asked."""
    size: bytes
    """struct winsize."""


class MasterEnd(Record, frozen=True, tag="terminal-master"):
    """The open file description of a master: there is never more than one."""

    object: ObjectId
    path: str


class SlaveEnd(Record, frozen=True, tag="terminal-slave"):
    """An open file description of a slave."""

    object: ObjectId
    path: str
    """As "/dev/pts/3" or "/dev/tty"."""
    hung_up: bool = False
    """Whether it is dead, though the pseudo-terminal lives. See vhangup(2)."""


class HungUp(Record, frozen=True, tag="terminal-hung-up"):
    """An open file description of a slave whose master is closed."""

    ptmx: str
    """Where another can be had."""
