"""Pseudo-terminals: what waits in them, their settings, whom they control."""

from __future__ import annotations

import pytest

from harness.program import Program, Run
from harness.ways import WAYS, Way

PROGRAMS = [
    Program("terminals"),
    Program("terminals_hung_up"),
    Program("terminal_closed"),
    Program("terminal_modes"),
    Program("controls_sessions"),
    Program("own_devpts", run_options=("--new", "mnt")),
]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.id)
def test_survives(run: Run, way: Way) -> None:
    way(run)
