"""Registers, and what the kernel keeps for each thread."""

from __future__ import annotations

import pytest

from harness.program import Program, Run
from harness.ways import WAYS, Way

PROGRAMS = [
    Program("registers_general"),
    Program("registers_flags"),
    Program("registers_sse"),
    Program("registers_avx"),
    Program("registers_avx512"),
    Program("registers_bases"),
    Program("protection_keys"),
    Program("user_dispatch"),
    Program("watchpoint"),
    Program("robust_futexes"),
    Program("rseq_registered"),
    Program("rseq_section"),
    Program("thread_exit_wakes"),
    Program("child_tid_cleared"),
]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.id)
def test_survives(run: Run, way: Way) -> None:
    way(run)
