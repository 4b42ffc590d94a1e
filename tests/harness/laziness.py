"""What is done to a program whose memory is still missing."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

from harness.descendants import descendants
from harness.eventually import eventually
from harness.modes import FILLING, ON_DEMAND
from harness.program import Run
from harness.ways import plain

LAZY_WAYS: dict[str, Callable[[Run], None]] = {"plain": plain}
"""By the name that each has in a test's id."""


def lazy_way(function: Callable[[Run], None]) -> Callable[[Run], None]:
    """Register a way under its name."""
    LAZY_WAYS[function.__name__] = function
    return function


def start_without_memory(run: Run, options: tuple[str, ...] = ON_DEMAND) -> None:
    """Bring a program to where it is ready, save it and bring it back without its memory."""
    run.start()
    run.job.checkpoint_and_kill()
    restore_without_memory(run, options)


def restore_without_memory(run: Run, options: tuple[str, ...] = ON_DEMAND) -> None:
    """Bring a program back without its memory."""
    run.job.restore_options = [*options]
    run.job.restore()
    run.job.restore_options = []


@lazy_way
def on_demand(run: Run) -> None:
    """Each page comes when it is asked for."""
    start_without_memory(run)
    run.must_pass()


@lazy_way
def filling(run: Run) -> None:
    """Pages come while the program runs."""
    start_without_memory(run, FILLING)
    run.must_pass()


@lazy_way
def saved_again(run: Run) -> None:
    """Checkpoint what has none of its memory yet; that comes first then."""
    start_without_memory(run)
    run.job.checkpoint_and_kill()
    run.job.restore()
    run.must_pass()


@lazy_way
def saved_alive(run: Run) -> None:
    """Checkpoint what has none of its memory yet, and let it go on."""
    start_without_memory(run)
    run.job.checkpoint()
    run.must_pass()
    run.back_to_checkpoint()
    restore_without_memory(run)
    run.must_pass()


@lazy_way
def image_removed(run: Run) -> None:
    """The image is gone as soon as the program runs."""
    start_without_memory(run)
    other = run.job.image.with_suffix(".other")
    other.write_bytes(b"another file")
    other.replace(run.job.image)
    run.job.image.unlink()
    run.must_pass()


@lazy_way
def pager_killed(run: Run) -> None:
    """Who brings the memory is killed, and its successor."""
    start_without_memory(run)
    for _ in range(2):
        replace("orch-pager")
    run.must_pass()


@lazy_way
def keeper_killed(run: Run) -> None:
    """Who would take over is killed, then who brings the memory."""
    start_without_memory(run)
    replace("orch-keeper")
    replace("orch-pager")
    run.must_pass()


@lazy_way
def pagers_killed(run: Run) -> None:
    """Who brings the memory is killed again and again, whatever it is doing."""
    start_without_memory(run)
    run.let_go()
    result = run.job.files / "result"
    while not result.exists() and run.job.processes():
        for pid in named("orch-pager"):
            if len(named("orch-keeper")) == 1:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    run.hold_back()
    run.must_pass()


def named(name: str) -> list[int]:
    """List the processes of ours that have a name."""
    found = []
    for pid in descendants():
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if stat.split("(", 1)[1].rsplit(")", 1)[0] == name and stat.rsplit(")", 1)[1].split()[0] not in "ZX":
            found.append(pid)
    return found


def replace(name: str) -> None:
    """Kill a pager or a keeper, and wait until there is another, and one of each."""
    (victim,) = named(name)
    os.kill(victim, signal.SIGKILL)
    both = ("orch-pager", "orch-keeper")
    eventually(
        lambda: victim not in named(name) and all(len(named(one)) == 1 for one in both), 10, f"there is another {name}"
    )
