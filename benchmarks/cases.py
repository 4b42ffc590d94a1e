"""Name what is measured: the jobs, and the figures taken of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Unit = Literal["us", "bytes", "count"]


@dataclass(frozen=True, slots=True)
class Case:
    """A job of one shape."""

    name: str
    title: str
    kind: str
    """What the workload program calls it: mem, tree, threads or files."""
    size: int
    """MiB, children, threads or descriptors."""
    repetitions: int
    tasks: int
    """Processes and threads in all."""


CASES = (
    Case("mem16", "one process, 16 MiB of touched private memory", "mem", 16, 9, 1),
    Case("mem1024", "one process, 1 GiB of touched private memory", "mem", 1024, 5, 1),
    Case("threads64", "one process, 64 waiting threads besides the first", "threads", 64, 9, 65),
    Case("tree100", "a tree of 100 processes", "tree", 99, 5, 100),
    Case("tree1000", "a tree of 1000 processes", "tree", 999, 3, 1000),
    Case(
        "files100000",
        "100 000 descriptors, in as few processes as may have them",
        "files",
        100_000,
        3,
        6,
    ),
)


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure of a case."""

    key: str
    title: str
    unit: Unit = "us"


MEASURES = (
    Measure("frozen_us", "frozen, job goes on"),
    Measure("freezing_us", "of frozen: until all are held"),
    Measure("memwrite_us", "of frozen: writing memory"),
    Measure("gap_us", "longest gap the job felt"),
    Measure("checkpoint_wall_us", "checkpoint command, job goes on"),
    Measure("kill_frozen_us", "frozen, job ends"),
    Measure("kill_wall_us", "checkpoint command, job ends"),
    Measure("pages_written", "pages written", "count"),
    Measure("image_bytes", "image size", "bytes"),
    Measure("restore_us", "restore: the work"),
    Measure("restore_wall_us", "restore command"),
    Measure("restore_start_us", "of it: the command's own start"),
    Measure("checkpoint_rss_bytes", "peak memory of checkpoint", "bytes"),
    Measure("restore_rss_bytes", "peak memory of restore", "bytes"),
    Measure("show_wall_us", "show the image"),
)

MEASURE_BY_KEY = {measure.key: measure for measure in MEASURES}

Samples = dict[str, float]
"""One repetition's figures, by the key of their measure."""


def case_named(name: str) -> Case:
    """Find a case; KeyError if there is none."""
    return {case.name: case for case in CASES}[name]
