"""Guess, while a job still runs, how large its image will be."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence

from orchestrator.ids import HostPid
from orchestrator.linux.procfs import read_file

_LARGE_KIB = 1024
_OWN = re.compile(rb"^Rss(?:Anon|Shmem):\s+(\d+) kB$", re.MULTILINE)
_PRIVATE = re.compile(rb"^Pss_Anon:\s+(\d+) kB$", re.MULTILINE)
_SHARED = re.compile(rb"^Pss_Shmem:\s+(\d+) kB$", re.MULTILINE)


def expected_bytes(pids: Sequence[HostPid]) -> tuple[int, int]:
    """Add up the memory of the larger processes, each page once: (private, shared)."""
    private = shared = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            if _sum(_OWN, read_file(f"/proc/{pid}/status")) >= _LARGE_KIB:
                rollup = read_file(f"/proc/{pid}/smaps_rollup")
                private += _sum(_PRIVATE, rollup)
                shared += _sum(_SHARED, rollup)
    return private * 1024, shared * 1024


def _sum(pattern: re.Pattern[bytes], text: bytes) -> int:
    return sum(map(int, pattern.findall(text)))
