"""Network namespaces whose links begin and end in them."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from harness.namespaces import (
    described,
    process,
    surveyed,
    target,
)
from orchestrator.linux import nsfs
from orchestrator.linux.nsfs import CLONE_NEWNET
from orchestrator.namespaces.inside import inside
from orchestrator.namespaces.registry import NAMESPACE_KINDS
from orchestrator.tape.build import Tape

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, stdin=subprocess.DEVNULL)


def _net_portrait() -> dict[str, str]:
    found = {}
    for name, words in {
        "links": ["-d", "link"], "addresses": ["addr"], "routes": ["-4", "route", "show", "table", "all"],
        "routes6": ["-6", "route", "show", "table", "all"], "rules": ["rule"], "rules6": ["-6", "rule"],
        "neighbours": ["neigh", "show", "nud", "permanent"],
    }.items():  # fmt: skip
        found[name] = subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout
    found["addresses"] = found["addresses"].replace(" nodad", "")
    for name in ("ipv4/ip_forward", "ipv4/conf/east/rp_filter", "ipv4/ip_local_port_range", "core/somaxconn"):
        found[name] = Path("/proc/sys/net", name).read_text()
    return found


def _settled() -> dict[str, str]:
    """Wait until no address is tentative any more, and describe the network."""
    until = time.monotonic() + 10
    while "tentative" in subprocess.run(["ip", "addr"], check=True, capture_output=True, text=True).stdout:
        assert time.monotonic() < until
        os.sched_yield()
    return _net_portrait()


def test_a_network_returns() -> None:
    def setup() -> None:
        nsfs.unshare(CLONE_NEWNET)
        for fd in (0, 1, 2):
            os.open("/dev/null", os.O_RDWR) if fd == 0 else os.dup2(0, fd)
        ip("link", "set", "lo", "up")
        ip("link", "add", "east", "index", "7", "mtu", "1400", "type", "veth", "peer", "name", "west", "index", "12")
        ip("link", "set", "east", "up", "alias", "a line", "txqueuelen", "55")
        ip("link", "set", "west", "up", "promisc", "on")
        ip("link", "property", "add", "dev", "west", "altname", "occident")
        ip("addr", "add", "10.1.2.3/24", "dev", "east")
        ip("addr", "add", "10.1.2.4/24", "dev", "east")
        ip("addr", "add", "10.9.9.9/32", "dev", "lo", "label", "lo:x")
        ip("-6", "addr", "add", "2001:db8::7/64", "dev", "east")
        ip("route", "add", "192.168.0.0/16", "via", "10.1.2.1", "metric", "7")
        ip("route", "add", "172.16.5.5", "via", "192.168.1.1", "onlink", "dev", "east", "table", "99")
        ip("route", "add", "unreachable", "172.17.0.0/16")
        ip("-6", "route", "add", "default", "via", "2001:db8::1")
        ip("-6", "route", "add", "2001:db8:1::/48", "nexthop", "via", "2001:db8::2", "nexthop", "via", "2001:db8::3")
        ip("rule", "add", "from", "10.9.9.9", "table", "99", "priority", "100")
        ip("neigh", "add", "10.1.2.9", "lladdr", "02:00:00:00:00:09", "dev", "east")
        ip("route", "del", "10.1.2.0/24", "dev", "east")
        ip("route", "add", "10.1.2.0/25", "dev", "east")
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        Path("/proc/sys/net/ipv4/conf/east/rp_filter").write_text("2")
        Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("20000 20999")
        Path("/proc/sys/net/core/somaxconn").write_text("77")

    kind = NAMESPACE_KINDS["net"]
    assert kind.outside is not None
    with process(setup) as one, process(lambda: nsfs.unshare(CLONE_NEWNET)) as other:
        wanted = inside(one.pid, ["net"], _settled, dict[str, str])
        record = described(one, "net")
        assert len(record.sysctls) < 20  # only what differs
        kind.outside(record, other.pid)
        have = inside(other.pid, ["net"], _net_portrait, dict[str, str])  # at once: no address is tentative
        for name, text in wanted.items():
            assert sorted(have[name].splitlines()) == sorted(text.splitlines()), name
        assert described(other, "net").links == record.links


def test_a_network_that_leads_outside_is_refused_by_name() -> None:
    def setup() -> None:
        nsfs.unshare(CLONE_NEWNET)
        os.open("/dev/null", os.O_RDWR)
        os.dup2(0, 1)
        os.dup2(0, 2)
        ip("link", "add", "inner", "type", "veth", "peer", "name", "outer")
        ip("link", "add", "bridge", "type", "bridge")

    def follow() -> None:
        nsfs.unshare(CLONE_NEWNET)

    with process(setup) as one, process(follow) as elsewhere:

        def send_away() -> None:
            fd = os.open("/dev/null", os.O_RDWR)
            assert fd >= 0
            ip("link", "set", "outer", "netns", str(elsewhere.pid))

        inside(one.pid, ["net"], send_away, None)
        with surveyed(one) as (scope, _):
            refused = {blocker.object for blocker in scope.blockers.unsupported}
            assert refused == {"link inner", "link bridge"}


def test_a_new_network_has_lo_up() -> None:
    fresh = NAMESPACE_KINDS["net"].fresh
    assert fresh is not None
    with target(lambda: nsfs.unshare(CLONE_NEWNET)) as other:
        tape = Tape("lo")
        fresh(tape)
        other.play(tape)

        def connect() -> bool:
            with socket.socket() as server, socket.socket() as client:
                server.bind(("127.0.0.1", 0))
                server.listen()
                client.connect(server.getsockname())
                return True

        assert inside(other.process.pid, ["net"], connect, bool)
        assert other.process.fds() == []
