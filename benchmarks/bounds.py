"""Measure what this machine can do at best, so that the other figures can be judged against it.

Runs as a process of its own (``python -m benchmarks.bounds DIRECTORY``), since what it touches would count as the
peak memory of every command that the benchmark starts later.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

from orchestrator.image.checksums import checksum_extents

GIB = 1 << 30
MADV_POPULATE_WRITE = 23
ROUNDS = 4


@dataclass(frozen=True, slots=True)
class Bounds:
    """Milliseconds for 1 GiB, the best of several rounds; nought where the kernel lacks it."""

    copy_ms: float
    touch_ms: float
    populate_ms: float
    touch_huge_ms: float
    fork_ms: float
    rewrite_ms: float
    write_ms: float
    write_sync_ms: float
    checksum_ms: float
    read_touched_ms: float
    read_fresh_ms: float

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what :func:`main` prints."""
        told = json.loads(text)
        return cls(**{field.name: float(told[field.name]) for field in fields(cls)})


TITLES = {
    "copy_ms": "copy memory into touched memory (memcpy)",
    "touch_ms": "touch fresh memory, 4 KiB pages (one fault a page)",
    "populate_ms": "the same with MADV_POPULATE_WRITE",
    "touch_huge_ms": "touch fresh memory, huge pages",
    "fork_ms": "fork a process that has it, copy-on-write",
    "rewrite_ms": "write to all of it while the child lives (one fault and copy a page)",
    "write_ms": "write it to a new file (page cache)",
    "write_sync_ms": "write it to a new file and fsync (disk)",
    "checksum_ms": "read it from the page cache and checksum it, as orch does when the job runs again",
    "read_touched_ms": "read it from the page cache into touched memory",
    "read_fresh_ms": "read it from the page cache into fresh memory",
}


@contextmanager
def memory(size: int, advice: int = mmap.MADV_NOHUGEPAGE) -> Iterator[tuple[mmap.mmap, int]]:
    """Map private anonymous memory; give it with its address."""
    mapped = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    mapped.madvise(advice)
    cell = ctypes.c_char.from_buffer(mapped)
    try:
        yield mapped, ctypes.addressof(cell)
    finally:
        del cell
        mapped.close()


def milliseconds(action: Callable[[], object]) -> float:
    """Time one call."""
    started = time.perf_counter()
    action()
    return (time.perf_counter() - started) * 1000


def measure(directory: Path, size: int) -> Bounds:
    """Take all bounds on ``size`` bytes and scale them to 1 GiB."""
    path = directory / "bounds"
    told: dict[str, float] = {}
    with memory(size, mmap.MADV_HUGEPAGE) as (_, address):
        told["touch_huge_ms"] = milliseconds(lambda: ctypes.memset(address, 1, size))
    with memory(size) as (mapped, _):
        try:
            told["populate_ms"] = milliseconds(lambda: mapped.madvise(MADV_POPULATE_WRITE))
        except OSError:  # before Linux 5.14
            told["populate_ms"] = 0.0
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with memory(size) as (first, source):
            told["touch_ms"] = milliseconds(lambda: ctypes.memset(source, 1, size))
            told["write_ms"] = milliseconds(lambda: transfer(os.pwritev, file, first, size))
            told["write_sync_ms"] = told["write_ms"] + milliseconds(lambda: os.fsync(file))
            told["checksum_ms"] = milliseconds(lambda: checksum_extents(file, 0, size))
            told["read_touched_ms"] = milliseconds(lambda: transfer(os.preadv, file, first, size))
            # Given back at once, for the copies: memory that a virtual machine has not had lately is slower still.
            with memory(size) as (_, soon_free):
                ctypes.memset(soon_free, 1, size)
            hold, let_go = os.pipe()
            told["fork_ms"] = milliseconds(lambda: fork(hold, let_go))
            told["rewrite_ms"] = milliseconds(lambda: ctypes.memset(source, 2, size))
            os.close(let_go)
            os.wait()
            os.close(hold)
            with memory(size) as (_, target):
                ctypes.memset(target, 1, size)
                told["copy_ms"] = milliseconds(lambda: ctypes.memmove(target, source, size))
        # After the others are given back, for the same reason.
        with memory(size) as (fresh, _):
            told["read_fresh_ms"] = milliseconds(lambda: transfer(os.preadv, file, fresh, size))
    finally:
        os.close(file)
        path.unlink()
    return Bounds(**{key: value * GIB / size for key, value in told.items()})


def fork(hold: int, let_go: int) -> None:
    """Fork a child that lives until the last writer of a pipe closes it."""
    if os.fork() == 0:
        os.close(let_go)
        os.read(hold, 1)
        os._exit(0)


def transfer(call: Callable[[int, list[memoryview], int], int], file: int, mapped: mmap.mmap, size: int) -> None:
    """Read or write all of a mapping, one large call after the other."""
    with memoryview(mapped) as whole:
        done = 0
        while done < size:
            with whole[done:] as rest:
                done += call(file, [rest], done)


def main(arguments: list[str]) -> int:
    """Print the bounds as JSON."""
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    size = GIB
    while size * 4 > available:
        size //= 2
    # The first round also warms up: a virtual machine's memory may be met here for the first time.
    rounds = [asdict(measure(Path(arguments[0]), size)) for _ in range(ROUNDS)]
    print(json.dumps({key: min(told[key] for told in rounds) for key in rounds[0]}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
