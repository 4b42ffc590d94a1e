"""What is done to a program between its getting ready and its checks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.modes import ON_DEMAND
from harness.program import Run

Way = Callable[[Run], None]

WAYS: dict[str, Way] = {}
"""Every way, by the name it has in a test's id."""


def way(function: Way) -> Way:
    """Register a way under its name."""
    WAYS[function.__name__] = function
    return function


@way
def plain(run: Run) -> None:
    """Nothing at all, and without orch: does the program itself work?"""
    run.start_plain()
    run.must_pass()


@way
def same(run: Run) -> None:
    """Checkpoint, kill and restore."""
    run.start()
    run.job.checkpoint_and_kill()
    run.job.restore()
    run.must_pass()


@way
def live(run: Run) -> None:
    """Checkpoint a job that goes on; it must pass, and so must its image, restored when it is over."""
    run.start()
    _goes_on(run)


def _goes_on(run: Run, *options: str) -> None:
    run.job.checkpoint(*options)
    run.must_pass()
    run.back_to_checkpoint()
    run.job.restore()
    run.must_pass()


@way
def repeat(run: Run) -> None:
    """Checkpoint, kill and restore, and all of it again: what was restored is checkpointed."""
    run.start()
    for _ in range(2):
        run.job.checkpoint_and_kill()
        run.job.restore()
    run.must_pass()


MORE_WAYS: dict[str, Way] = {}
"""Ways that say little about one kind of state and much about the whole: for some programs only."""


def rarer_way(function: Way) -> Way:
    """Register a way that only some programs go."""
    MORE_WAYS[function.__name__] = function
    return function


@rarer_way
def live_without_replicas(run: Run) -> None:
    """Checkpoint a job that goes on, all of it written while it stands still; kill it, and bring it back."""
    run.start()
    _goes_on(run, "--no-replicas")


@rarer_way
def live_large(run: Run) -> None:
    """Checkpoint a job of large processes that goes on, as with ``live``: replicas tell what there is to be saved."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("ORCHTEST_MIB", "16")
        run.start()
    _goes_on(run)


@rarer_way
def live_twice(run: Run) -> None:
    """Checkpoint a job that goes on, and again; it must pass, and so must the second image when it is over."""
    run.start()
    run.job.checkpoint()
    run.job.checkpoint()
    run.must_pass()
    run.back_to_checkpoint()
    run.job.restore()
    run.must_pass()


LOOKED_AT_ONCE = {"unix_pairs-dgram", "unix_pairs-seqpacket"}
"""Programs with an empty message in a queue, which the kernel shows once: a second checkpoint is refused."""


@rarer_way
def delta(run: Run) -> None:
    """Checkpoint a job that goes on, have its writes noted, end it with a delta, and bring it back from that."""
    if run.program.id in LOOKED_AT_ONCE:
        pytest.skip("an empty message is shown once")
    run.start()
    run.job.checkpoint("--track")
    run.job.restore(_end_with_delta(run))
    run.must_pass()


@rarer_way
def delta_by_comparison(run: Run) -> None:
    """End a restored job with a delta to its image, with which it is compared as nobody has noted its writes."""
    run.start()
    run.job.checkpoint_and_kill()
    run.job.restore()
    run.job.restore(_end_with_delta(run))
    run.must_pass()


def _end_with_delta(run: Run) -> Path:
    image = run.job.image.with_name("delta.ckpt")
    run.job.checkpoint("--parent", "last", "--kill", image=image)
    run.job.wait_until_over()
    return image


@rarer_way
def precopied(run: Run) -> None:
    """Write a job while it runs, end it with what is left, and bring it back from the image of it all."""
    run.start()
    run.job.checkpoint("--precopy", "3", "--kill")
    run.job.wait_until_over()
    run.job.restore()
    run.must_pass()


@rarer_way
def stopped(run: Run) -> None:
    """Checkpoint a job and leave it stopped: it stands still until it is told to go on."""
    run.start()
    run.job.checkpoint("--stop")
    run.let_go()
    run.job.must_stand_still()
    run.hold_back()
    run.job.kill()
    run.job.restore()
    run.must_pass()


@rarer_way
def lazily(run: Run) -> None:
    """Restore a job without its memory, twice; each page comes when it is used, and all before the next checkpoint."""
    run.start()
    for _ in range(2):
        run.job.checkpoint_and_kill()
        run.job.restore_options = [*ON_DEMAND]
        run.job.restore()
    run.must_pass()


@rarer_way
def moved(run: Run) -> None:
    """Send the job through a pipe, as it is and compressed."""
    run.start()
    run.job.move()
    run.job.move("--compress", "lz4")
    run.must_pass()


@rarer_way
def sent_live(run: Run) -> None:
    """Send a job that goes on into a compressed image; it must pass, and so must that, restored when it is over."""
    run.start()
    _goes_on(run, "--compress")


@rarer_way
def host_pids(run: Run) -> None:
    """Restore into the host's PID namespace, where the PIDs are free again."""
    run.start()
    run.job.checkpoint_and_kill()
    run.job.restore_options = ["--pid-namespace", "host"]
    run.job.restore()
    run.must_pass()


@rarer_way
def own_namespaces(run: Run) -> None:
    """A job with namespaces of its own from the start; they are rebuilt, twice."""
    run.run_options = ["--new", "pid,net,mnt,uts,ipc,time,cgroup"]
    run.start()
    for _ in range(2):
        run.job.checkpoint_and_kill()
        run.job.restore()
    run.must_pass()


@rarer_way
def killed_while_seizing(run: Run) -> None:
    """Kill orch when it has seized the first task of the job: the job goes on unharmed."""
    run.start()
    run.job.checkpoint_killed_when(run.job.is_traced)
    run.must_pass()


@rarer_way
def killed_while_writing(run: Run) -> None:
    """Kill orch when it writes the image: the job goes on unharmed, and there is no image."""
    run.start()
    run.job.checkpoint_killed_when(run.job.is_being_written)
    run.must_pass()


WAYS.update({name: MORE_WAYS[name] for name in os.environ.get("ORCH_TESTS_WAYS", "").split(",") if name})
"""With these all programs go rarer ways, too: see `make test-modes`."""
