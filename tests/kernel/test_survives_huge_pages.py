"""Memory of hugetlbfs, which needs pages in the machine's pool."""

from __future__ import annotations

import pytest

from harness.hugepages import WANTED, huge_pages
from harness.program import Program, Run
from harness.ways import WAYS, Way

PROGRAMS = [Program("huge_pages")]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.id)
def test_survives(run: Run, way: Way) -> None:
    with huge_pages() as there:
        if there < WANTED:
            pytest.skip("no room for huge pages")
        way(run)
