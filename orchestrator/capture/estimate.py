"""Guess how large an image will be, while the job still runs."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence

from orchestrator.ids import HostPid
from orchestrator.linux.procfs import read_file

_LARGE_KIB = 1024
_OWN = re.compile(rb"^Rss(?:Anon|Shmem):\s+(\d+) kB$", re.MULTILINE)
_SHARE = re.compile(rb"^Pss_(?:Anon|Shmem):\s+(\d+) kB$", re.MULTILINE)
_AVAILABLE = re.compile(rb"^MemAvailable:\s+(\d+) kB$", re.MULTILINE)


def expected_bytes(pids: Sequence[HostPid]) -> int:
    """Add up the memory of the larger processes, each page once; 0 if the machine has not twice as much to spare."""
    kib = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            if _sum(_OWN, read_file(f"/proc/{pid}/status")) >= _LARGE_KIB:
                kib += _sum(_SHARE, read_file(f"/proc/{pid}/smaps_rollup"))
    return kib * 1024 if 2 * kib < _sum(_AVAILABLE, read_file("/proc/meminfo")) else 0


def _sum(pattern: re.Pattern[bytes], text: bytes) -> int:
    return sum(map(int, pattern.findall(text)))
