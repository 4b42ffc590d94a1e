"""Process 1 of a restored namespace: it reaps whom nobody else does, and the job never notices."""

from __future__ import annotations

import pytest

from harness.program import Program, Run
from harness.ways import WAYS, Way


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("program", [Program("orphan_reaped")], ids=lambda program: program.id)
def test_orphans_are_reaped(run: Run, way: Way) -> None:
    way(run)
