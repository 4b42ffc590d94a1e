"""Processes, threads, zombies, sessions and groups, and what processes share without being threads."""

from __future__ import annotations

import pytest

from harness.program import Program, Run
from harness.ways import WAYS, Way

PROGRAMS = [
    Program("tree"),
    Program("many_processes", seconds=60),
    Program("threads"),
    Program("thread_tables"),
    Program("zombies"),
    Program("zombie_identity"),
    Program("stopped"),
    Program("stopped_threads"),
    Program("stop_known"),
    Program("sessions"),
    Program("dead_leaders"),
    Program("orphans"),
    Program("subreaper"),
    Program("exit_signals"),
    Program("parent_death_signal"),
    Program("clone_vm"),
    Program("clone_files"),
    Program("clone_fs"),
    Program("clone_sighand"),
    Program("shared_table_not_with_parent"),
    Program("leader_exited"),
    Program("main_thread_ended"),
]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.id)
def test_survives(run: Run, way: Way) -> None:
    way(run)
