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
    """What the workload program calls it: mem, huge, forked, tree, filled, threads or files."""
    size: int
    """MiB, children, threads or descriptors."""
    repetitions: int
    tasks: int
    """Processes and threads in all."""
    delta: bool = False
    """Whether a delta behind writes is taken too (kind mem)."""

    @property
    def mib(self) -> int:
        """How much memory it fills, in MiB; nought if that is not what it is about."""
        match self.kind:
            case "mem" | "huge" | "forked":
                return self.size
            case "filled":
                return self.tasks
        return 0


CASES = (
    Case("mem16", "one process, 16 MiB of touched private memory", "mem", 16, 9, 1),
    Case("mem1024", "one process, 1 GiB of touched private memory", "mem", 1024, 5, 1, delta=True),
    Case("mem10240", "one process, 10 GiB of touched private memory", "mem", 10240, 2, 1),
    Case("huge1024", "one process, 1 GiB of touched private memory in huge pages", "huge", 1024, 5, 1),
    Case("threads64", "one process, 64 waiting threads besides the first", "threads", 64, 9, 65),
    Case("tree100", "a tree of 100 processes", "tree", 99, 5, 100),
    Case("tree100x1", "a tree of 100 processes with 1 MiB of touched private memory each", "filled", 99, 5, 100),
    Case("tree1000", "a tree of 1000 processes", "tree", 999, 3, 1000),
    Case(
        "files100000",
        "100 000 descriptors, in as few processes as may have them",
        "files",
        100_000,
        3,
        6,
    ),
    Case("tree8x256", "8 forked workers that share 256 MiB with their parent, copy-on-write", "forked", 256, 5, 9),
    Case("threads10000", "one process, up to 10 000 waiting threads besides the first", "threads", 10_000, 2, 10_001),
)


@dataclass(frozen=True, slots=True)
class Scaling:
    """Cases of one kind that grow: of them only a checkpoint of a job that goes on is taken, and a restore."""

    name: str
    title: str
    across: str
    """What the size is, in words."""
    cases: tuple[Case, ...]

    def size(self, case: Case) -> int:
        """Return what is drawn along the axis: MiB, or processes."""
        return case.size if case.kind == "mem" else case.tasks


def _memory(mib: int) -> Case:
    many = 3 if mib < 4096 else 1
    return Case(f"{mib} MiB", "one process with touched private memory", "mem", mib, many, 1)


def _tree(processes: int) -> Case:
    return Case(f"{processes} processes", "a tree of processes", "tree", processes - 1, 3, processes)


SCALINGS = (
    Scaling("processes", "the number of processes", "processes", tuple(map(_tree, (1, 3, 10, 30, 100, 300, 1000)))),
    Scaling("memory", "the memory of one process", "MiB", tuple(map(_memory, (16, 64, 256, 1024, 4096, 10240)))),
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
    Measure("lazy_us", "restore --lazy: the work"),
    Measure("lazy_filled_us", "from then until all its memory is there"),
    Measure("checkpoint_rss_bytes", "peak memory of checkpoint", "bytes"),
    Measure("restore_rss_bytes", "peak memory of restore", "bytes"),
    Measure("lazy_rss_bytes", "peak memory of the pager of restore --lazy", "bytes"),
    Measure("show_wall_us", "show the image"),
    Measure("pss_before_bytes", "sum of Pss before the checkpoint", "bytes"),
    Measure("pss_after_bytes", "sum of Pss after the restore", "bytes"),
    Measure("huge_before_bytes", "huge pages (AnonHugePages) before the checkpoint", "bytes"),
    Measure("huge_after_bytes", "huge pages after the restore", "bytes"),
    Measure("delta_frozen_us", "frozen, delta behind 16 MiB of writes"),
    Measure("delta_image_bytes", "image size of that delta", "bytes"),
)

MEASURE_BY_KEY = {measure.key: measure for measure in MEASURES}

Samples = dict[str, float]
"""One repetition's figures, by the key of their measure."""


def case_named(name: str) -> Case:
    """Find a case; KeyError if there is none."""
    return {case.name: case for case in CASES}[name]
