"""What a probe is: one thing that orch needs of the kernel, actually tried, and what is lost without it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, NoReturn


class Probe(NamedTuple):
    """One thing to try."""

    name: str
    attempt: Callable[[], None]
    """Harmless to this machine; raises OSError (or LookupError, for something that is not there to be tried)."""
    lost: str
    """What does not work without it."""
    essential: bool = False
    """Whether neither a checkpoint nor a restore works without it."""


class Finding(NamedTuple):
    """How a probe went."""

    name: str
    works: bool
    why: str
    """What went wrong; empty if it works."""
    lost: str
    essential: bool


def examine(probe: Probe) -> Finding:
    """Try one probe."""
    try:
        probe.attempt()
    except (OSError, LookupError) as error:
        why = str(error.strerror or error) if isinstance(error, OSError) else str(error.args[0])
        return Finding(probe.name, False, why, probe.lost, probe.essential)
    return Finding(probe.name, True, "", probe.lost, probe.essential)


def attempt_in_child(attempt: Callable[[], None], make: Callable[[], int] = os.fork) -> None:
    """Try something in a process of its own, for what changes the process that does it."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        pid = make()
        if pid == 0:
            _try_and_end(attempt, writing)
    except OSError:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    with open(reading, "rb") as pipe:
        failure = pipe.read()
    _, status = os.waitpid(pid, 0)
    if failure:
        number = int(failure)
        raise OSError(number, os.strerror(number))
    if status != 0:
        raise LookupError(f"the process that tried it ended with status {os.waitstatus_to_exitcode(status)}")


def _try_and_end(attempt: Callable[[], None], writing: int) -> NoReturn:  # pragma: no cover  (runs in the child)
    try:
        attempt()
        os._exit(0)
    except OSError as error:
        os.write(writing, str(error.errno or 0).encode())
    finally:
        os._exit(1)


@contextmanager
def bystander() -> Iterator[int]:
    """Give a child that does nothing, and end it."""
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0x40000000)
