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
    Program("unix_crowded", seconds=60),
    *(Program("tcp_listeners", (kind,)) for kind in ("v4", "v6")),
    *(Program("tcp_unaccepted", (kind,)) for kind in ("v4", "v6")),
    Program("tcp_connecting"),
    Program("tcp_flowing"),
    Program("tcp_states"),
    Program("tcp_to_itself"),
    Program("raw_sockets"),
    Program("raw_protocols"),
    Program("bound_freely"),
    *(Program("ports_shared", (kind,)) for kind in ("tcp", "tcpboth", "udp", "udpport")),
    Program("packet_rings"),
    Program("unix_to_itself"),
    Program("udp_queues"),
    *(
        Program("every_socket_option", (kind,), seconds=60)
        for kind in ("unix", "tcp", "listening", "connected", "ended", "udp", "raw", "other")
    ),
]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.id)
def test_survives(run: Run, way: Way) -> None:
    way(run)


@pytest.mark.parametrize("way", [WAYS["same"], WAYS["repeat"]], ids=lambda way: way.__name__)
@pytest.mark.parametrize(
    "program", [Program("tcp_all_cut", checkpoint_options=("--tcp", "close-all"))], ids=lambda program: program.id
)
def test_all_connections_can_be_cut(run: Run, way: Way) -> None:
    way(run)


@pytest.mark.parametrize("way", [WAYS["plain"], WAYS["same"], WAYS["repeat"]], ids=lambda way: way.__name__)
@pytest.mark.parametrize(
    "program",
    [
        *(Program("tcp_unaccepted", (kind, "data")) for kind in ("v4", "v6")),
        *(Program("unix_unaccepted", (kind,)) for kind in ("path", "abstract")),
    ],
    ids=lambda program: program.id,
)
def test_survives_if_it_ends(run: Run, way: Way) -> None:
    way(run)
