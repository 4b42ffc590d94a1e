"""Ask the pager of a job how much of its memory is still missing, and wait until nothing is."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable

from orchestrator.errors import JobBusy, PagesLost
from orchestrator.paging.desk import SOCKET, URGENT

_WITHIN = 1.0
ALL_KILLED = "all who were to bring it were killed"
"""What has happened then."""


def ask(directory: str) -> tuple[int, int] | None:
    """Return how many bytes are missing and how many were; None if nothing is. ``directory`` is the job's."""
    try:
        door = _visit(directory)
    except PagesLost:
        return None
    if door is None:
        return None
    with door:
        door.settimeout(_WITHIN)
        try:
            return _parse(door.recv(64))
        except OSError:
            return None


def await_filled(directory: str, patience: float, progress: Callable[[int, int], None] | None = None) -> None:
    """Wait until nothing of a job's memory is missing. ``progress`` is called with the bytes that are there, and all.

    Raises JobBusy if nothing more comes for ``patience`` seconds, PagesLost if nobody is there to bring it.
    """
    least: int | None = None
    deadline = time.monotonic() + patience
    while (door := _visit(directory)) is not None:
        with door:
            door.send(URGENT)
            poll = select.poll()
            poll.register(door, select.POLLIN)
            while True:
                if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    raise JobBusy(
                        "memory of the job is still on its way from the image that it was restored from, and nothing "
                        f"more of it has come for {patience:g} s",
                        hint="'orch ps' tells how much is there; wait, or give a longer --timeout",
                    )
                try:
                    said = _parse(door.recv(4096))
                except ConnectionError:
                    said = None
                if said is None:  # all is there; or its pager has died, and another is at the door
                    break
                if least is None or said[0] < least:
                    least = said[0]
                    deadline = time.monotonic() + patience
                if progress is not None:
                    progress(said[1] - min(said), said[1])


def is_forsaken(directory: str) -> bool:
    """Say whether memory of a job is missing and nobody is there to bring it: all who did were killed."""
    path = f"{directory}/{SOCKET}"
    if not os.path.exists(path):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as door:
        try:
            door.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def _visit(directory: str) -> socket.socket | None:
    """Connect; None if nothing is missing. Raises PagesLost."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        door.connect(f"{directory}/{SOCKET}")
    except ConnectionRefusedError as error:
        door.close()
        raise PagesLost(f"memory of the job was still missing when {ALL_KILLED}") from error
    except OSError:
        door.close()
        return None
    return door


def _parse(said: bytes) -> tuple[int, int] | None:
    """Read the last whole line."""
    lines = said.split(b"\n")[:-1]
    if not lines:
        return None
    missing, total = lines[-1].split()
    return int(missing), int(total)
