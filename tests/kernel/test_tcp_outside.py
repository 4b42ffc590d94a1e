"""TCP connections with the outside: kept by a packet filter from the end of a job until its restore."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from harness.command import Finished
from harness.job import Job
from harness.program import Program, Run
from harness.two_networks import HERE, TwoNetworks, two_networks
from orchestrator.linux.netlink import NETLINK_NETFILTER, NFT_MSG_GETTABLE, Netlink
from orchestrator.linux.nftables import Flow, Nftables

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root")

PERIOD, CHUNK = 65521, 40000
PATTERN = bytes((i % PERIOD) * 2654435761 >> 16 & 0xFF for i in range(2 * PERIOD))
FAMILIES = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])


@pytest.fixture
def networks() -> Iterator[TwoNetworks]:
    with two_networks() as made:
        yield made


@dataclass
class Peer:
    """The other end: sends the pattern, and compares what it gets with it."""

    listener: socket.socket
    says: int | None = None
    """How many bytes it sends before it ends its direction; None: until the job's end has ended its own."""
    received: int = 0
    failures: list[str] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        sock, _ = self.listener.accept()
        sock.settimeout(60)
        with sock:
            sender = threading.Thread(target=self._guard, args=(self._send, sock))
            sender.start()
            self._guard(self._receive, sock)
            sender.join()

    def _guard(self, work: object, sock: socket.socket) -> None:
        try:
            work(sock)  # type: ignore[operator]
        except (OSError, AssertionError) as error:
            self.failures.append(repr(error))
        finally:
            if work == self._receive:
                self.ended.set()

    def _send(self, sock: socket.socket) -> None:
        sent = 0
        while (sent < self.says) if self.says is not None else not self.ended.is_set():
            size = CHUNK if self.says is None else min(CHUNK, self.says - sent)
            sock.sendall(PATTERN[sent % PERIOD :][:size])
            sent += size
        sock.shutdown(socket.SHUT_WR)

    def _receive(self, sock: socket.socket) -> None:
        while piece := sock.recv(CHUNK):
            at = self.received % PERIOD
            assert piece == PATTERN[at : at + len(piece)], f"differs behind byte {self.received}"
            self.received += len(piece)

    def start(self) -> None:
        self.threads.append(threading.Thread(target=self.run))
        self.threads[0].start()

    def must_be_content(self) -> None:
        self.threads[0].join(60)
        assert not self.threads[0].is_alive()
        assert self.failures == []


def begin(
    job: Job, networks: TwoNetworks, kind: str, family: socket.AddressFamily = socket.AF_INET, says: int | None = None
) -> tuple[Run, Peer]:
    return begin_with(networks.listen_there(family), job, kind, says)


def begin_with(listener: socket.socket, job: Job, kind: str, says: int | None = None) -> tuple[Run, Peer]:
    host, port = listener.getsockname()[:2]
    peer = Peer(listener, says)
    peer.start()
    run = Run(Program("tcp_outside", (kind, host, str(port)), seconds=60), job)
    run.start()
    listener.close()
    return run, peer


def filters() -> int:
    with Netlink(NETLINK_NETFILTER) as netlink:
        return len(netlink.dump(NFT_MSG_GETTABLE, bytes(4)))


@FAMILIES
def test_data_flows_on_in_both_directions(job: Job, networks: TwoNetworks, family: socket.AddressFamily) -> None:
    run, peer = begin(job, networks, "flow", family)
    for _ in range(2):
        run.job.checkpoint_and_kill("--tcp", "keep")
        assert filters() == 1
        run.job.restore()
        assert filters() == 0
    run.must_pass()
    peer.must_be_content()
    assert peer.received > 20 * CHUNK


@FAMILIES
@pytest.mark.usefixtures("networks")
def test_the_other_end_may_be_on_the_same_machine(job: Job, family: socket.AddressFamily) -> None:
    listener = socket.create_server(("127.0.0.1" if family == socket.AF_INET else "::1", 0), family=family)
    run, peer = begin_with(listener, job, "flow")
    run.job.checkpoint_and_kill("--tcp", "keep")
    run.job.restore()
    run.must_pass()
    peer.must_be_content()
    assert peer.received > 0


@FAMILIES
def test_the_other_end_had_said_its_last(job: Job, networks: TwoNetworks, family: socket.AddressFamily) -> None:
    run, peer = begin(job, networks, "ended", family, says=3 * CHUNK // 2)
    for _ in range(2):
        run.job.checkpoint_and_kill("--tcp", "keep")
        run.job.restore()
    run.must_pass()
    peer.must_be_content()
    assert peer.received == CHUNK


def test_the_job_had_said_its_last(job: Job, networks: TwoNetworks) -> None:
    run, peer = begin(job, networks, "ends", says=50 * CHUNK)
    run.job.checkpoint_and_kill("--tcp", "keep")
    run.job.restore()
    run.must_pass()
    peer.must_be_content()
    assert peer.received == CHUNK


def test_a_refused_checkpoint_lets_the_connection_flow(job: Job, networks: TwoNetworks) -> None:
    run, peer = begin(job, networks, "blocked")
    job.orch.expect(20, "checkpoint", "--cgroup", job.name, "-o", str(job.image), "--kill", "--tcp", "keep")
    assert filters() == 0
    run.must_pass()
    peer.must_be_content()


def test_a_missing_address_is_named_and_can_be_added(job: Job, networks: TwoNetworks) -> None:
    run, peer = begin(job, networks, "flow")
    run.job.checkpoint_and_kill("--tcp", "keep")
    networks.address(socket.AF_INET, remove=True)
    refused = _refused(job, 43)
    assert f"this machine does not have the address {HERE[socket.AF_INET]}" in refused.errors
    assert filters() == 1
    networks.address(socket.AF_INET, remove=False)
    refused = _refused(job, 45, "--new", "net")
    assert "leads outside" in refused.errors
    run.job.restore()
    assert filters() == 0
    run.must_pass()
    peer.must_be_content()


def _refused(job: Job, code: int, *options: str) -> Finished:
    return job.orch.expect(code, "restore", str(job.image), "-d", *options)


def test_an_image_that_is_not_restored_gives_its_connections_up(job: Job, networks: TwoNetworks) -> None:
    run, peer = begin(job, networks, "flow")
    run.job.checkpoint_and_kill("--tcp", "keep")
    job.orch.ok("unlock", str(job.image))
    assert filters() == 0
    assert "nothing is held back" in job.orch.ok("unlock", str(job.image)).output
    peer.threads[0].join(60)
    assert "ConnectionResetError" in "".join(peer.failures) or "BrokenPipeError" in "".join(peer.failures)


@pytest.mark.parametrize("cut_at", ["checkpoint", "restore", "restore elsewhere"])
def test_connections_can_be_cut(job: Job, networks: TwoNetworks, cut_at: str) -> None:
    run, peer = begin(job, networks, "cut")
    run.job.checkpoint_and_kill("--tcp", "close" if cut_at == "checkpoint" else "keep")
    assert filters() == (cut_at != "checkpoint")
    if cut_at != "checkpoint":
        run.job.restore_options = ["--tcp", "close", *(["--new", "net"] if cut_at == "restore elsewhere" else [])]
    run.job.restore()
    assert filters() == 0
    run.must_pass()
    peer.threads[0].join(60)
    assert "ConnectionResetError" in "".join(peer.failures) or "BrokenPipeError" in "".join(peer.failures)


def test_a_job_that_goes_on_cannot_keep_them(job: Job, networks: TwoNetworks) -> None:
    run, peer = begin(job, networks, "flow")
    job.orch.expect(2, "checkpoint", "--cgroup", job.name, "-o", str(job.image), "--tcp", "keep")
    job.orch.expect(21, "checkpoint", "--cgroup", job.name, "-o", str(job.image))
    run.must_pass()
    peer.must_be_content()


@pytest.mark.usefixtures("networks")
def test_a_filter_that_is_owned_ends_with_its_owner() -> None:
    with Nftables() as owner:
        owner.drop("orch-owned", [Flow(("10.0.0.1", 1), ("10.0.0.2", 2)), Flow(("::1", 1), ("::2", 2))], owned=True)
        assert filters() == 1
    assert filters() == 0
