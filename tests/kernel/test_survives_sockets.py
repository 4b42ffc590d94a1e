"""Sockets: Unix pairs, listeners and datagrams, and listening TCP."""

from __future__ import annotations

import pytest

from harness.program import Program, Run
from harness.ways import WAYS, Way

PROGRAMS = [
    *(Program("unix_pairs", (kind,)) for kind in ("stream", "dgram", "seqpacket")),
    Program("unix_half_closed"),
    *(Program("unix_listeners", (kind,)) for kind in ("path", "abstract")),
    Program("unix_datagrams"),
    *(Program("tcp_listeners", (kind,)) for kind in ("v4", "v6")),
]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.id)
def test_survives(run: Run, way: Way) -> None:
    way(run)
