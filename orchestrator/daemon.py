"""A supervisor in the background: how it gets there, and what it says to who started it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NoReturn

import msgspec

from orchestrator import errors
from orchestrator.errors import OrchError


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line from a supervisor: that the job runs, or why it does not, or how it ended."""

    job: str | None = None
    error: str | None = None
    """The name of a class of :mod:`orchestrator.errors`."""
    message: str = ""
    hint: str | None = None
    status: int | None = None
    """The wait status of the job's root."""


class Reporter:
    """The supervisor's end of the pipes on which it reports."""

    def __init__(self, *fds: int) -> None:
        self._fds = fds

    def say(self, report: Report) -> None:
        """Write one line to everybody who still listens."""
        line = msgspec.json.encode(report) + b"\n"
        for fd in self._fds:
            try:
                os.write(fd, line)
            except BrokenPipeError:
                continue

    def running(self, job: str) -> None:
        self.say(Report(job=job))

    def failed(self, error: BaseException) -> None:
        name, message, hint = told(error)
        self.say(Report(error=name, message=message, hint=hint))


def read_report(line: bytes) -> Report:
    """Decode a line; raise the error that it tells of. No line is a supervisor that died."""
    if not line:
        raise OrchError("the job's supervisor ended before the job ran")
    report = msgspec.json.decode(line, type=Report)
    if report.error is not None:
        raise untold(report.error, report.message, report.hint)
    return report


def told(error: BaseException) -> tuple[str, str, str | None]:
    """Part an error into what another process can be told: the name of its class, its message, its hint."""
    if isinstance(error, OrchError):
        return type(error).__name__, error.message, error.hint
    return OrchError.__name__, f"{type(error).__name__}: {error}", None


def untold(name: str, message: str, hint: str | None) -> OrchError:
    """Return the error that :func:`told` has parted."""
    kind = getattr(errors, name, OrchError)
    if not (isinstance(kind, type) and issubclass(kind, OrchError)):
        kind = OrchError
    error: OrchError = kind.__new__(kind)  # not by calling the class: some take the parts of their message
    OrchError.__init__(error, message, hint=hint)
    return error


def detach(work: Callable[[Reporter], int], listener: int | None = None) -> str:
    """Run ``work`` in a process of its own that outlives us; return the job's name once it says that it runs.

    ``work`` returns the wait status of the job's root. ``listener`` is a descriptor that gets the reports too.
    Must be called while we have one thread.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    middle = os.fork()
    if middle == 0:
        os.close(reading)
        _descend(work, [writing] if listener is None else [writing, listener])
    os.close(writing)
    os.waitpid(middle, 0)
    with open(reading, "rb") as pipe:
        return read_report(pipe.readline()).job or ""


def _descend(work: Callable[[Reporter], int], fds: list[int]) -> NoReturn:
    """End the middle process once it has a child that no terminal and no shell knows of."""
    try:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        reporter = _Quieting(*fds)
        try:
            status = work(reporter)
            reporter.say(Report(status=status))
        except BaseException as error:  # noqa: BLE001  whatever it is, who started us must hear of it
            reporter.failed(error)
            os._exit(1)
    finally:
        os._exit(0)


class _Quieting(Reporter):
    """Lets go of the caller's streams once the job runs: until then errors and progress may use them."""

    def running(self, job: str) -> None:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        if null > 2:
            os.close(null)
        os.chdir("/")
        super().running(job)
