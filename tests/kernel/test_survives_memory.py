"""Memory: every kind of mapping, its contents, its layout, and what is shared with whom."""

from __future__ import annotations

import pytest

from harness.program import Program, Run
from harness.ways import MORE_WAYS, WAYS, Way

PROGRAMS = [
    Program("anon_private"),
    Program("protections"),
    Program("executable_memory"),
    Program("file_private"),
    Program("file_shared"),
    Program("file_deleted_mapping"),
    Program("anon_shared"),
    Program("memfd_shared"),
    Program("memfd_sealed_write"),
    Program("dev_shm"),
    Program("stack_growth"),
    Program("grows_down"),
    Program("droppable"),
    Program("memory_policies"),
    Program("vdso_unmapped"),
    Program("vdso"),
    Program("brk_grows"),
    Program("identity"),
    Program("maps_same"),
    Program("cow_contents"),
    Program("cow_sharing"),
    Program("cow_heirlooms"),
    Program("large_private"),
    Program("big_memory", seconds=60),
    Program("many_mappings", seconds=60),
    Program("locks_future_memory"),
    Program("kept_from_children"),
    Program("beside_ours"),
    Program("snapshot_moment"),
    Program("snapshot_unseen"),
    Program("sysv_shm"),
]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.id)
def test_survives(run: Run, way: Way) -> None:
    way(run)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.id)
def test_survives_if_it_is_large(run: Run, program: Program) -> None:  # noqa: ARG001 - of the fixture "run"
    MORE_WAYS["live_large"](run)
