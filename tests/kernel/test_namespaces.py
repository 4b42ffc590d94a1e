"""Which namespaces a job has, and the small ones: described from outside, made again by tape, and compared."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from harness.namespaces import (
    described,
    libc,
    ok,
    process,
    rebuilt,
    surveyed,
    target,
)
from harness.replay import new_scope
from orchestrator.ids import HostPid, Pid
from orchestrator.kinds.scope import Scope
from orchestrator.linux import nsfs
from orchestrator.linux.nsfs import CLONE_NEWNET, CLONE_NEWUTS
from orchestrator.namespaces.inside import inside
from orchestrator.namespaces.registry import NAMESPACE_KINDS
from orchestrator.namespaces.survey import prepare, survey
from orchestrator.namespaces.time import clocks_of, offsets
from orchestrator.namespaces.uts import UtsNamespace, read_names

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


def test_shared_namespaces_have_no_record() -> None:
    with process(lambda: None) as one, surveyed(one) as (scope, found):
        assert list(found) == list(NAMESPACE_KINDS)
        assert not any(namespace.private or namespace.body for namespace in found.values())
        scope.blockers.raise_if_any()


def test_namespaces_inside_the_job_are_refused_by_name() -> None:
    with (
        process(lambda: None) as one,
        process(lambda: nsfs.unshare(CLONE_NEWUTS | CLONE_NEWNET)) as other,
        surveyed(one, other) as (scope, _),
    ):
        refused = {blocker.object for blocker in scope.blockers.unsupported}
        assert refused == {"uts namespace", "net namespace"}
        assert {blocker.task for blocker in scope.blockers.unsupported} == {f"{other.pid} (test)"}


def test_namespaces_for_children_are_refused_by_name() -> None:
    def setup() -> None:
        nsfs.unshare(nsfs.CLONE_NEWPID | nsfs.CLONE_NEWTIME)

    with process(setup) as one, surveyed(one) as (scope, _):
        refused = {blocker.object for blocker in scope.blockers.unsupported}
        assert refused == {"pid namespace for its children", "time namespace for its children"}


def test_a_thread_in_another_namespace_is_refused_by_name() -> None:
    def setup() -> None:
        import threading

        ready = threading.Event()

        def stray() -> None:
            nsfs.unshare(CLONE_NEWUTS)
            ready.set()
            threading.Event().wait()

        threading.Thread(target=stray, daemon=True).start()
        ready.wait()

    with process(setup) as one, surveyed(one) as (scope, _):
        assert [b.object.rpartition(" ")[0] for b in scope.blockers.unsupported] == ["uts namespace of thread"]


def test_a_user_namespace_is_refused_by_name() -> None:
    with process(lambda: nsfs.unshare(nsfs.CLONE_NEWUSER)) as one, surveyed(one) as (scope, _):
        assert [blocker.object for blocker in scope.blockers.unsupported] == ["user namespace"]


def test_a_stranger_in_a_private_namespace_is_noted() -> None:
    with process(lambda: nsfs.unshare(CLONE_NEWUTS)) as one:

        def follow() -> None:
            fd = os.open(f"/proc/{one.pid}/ns/uts", os.O_RDONLY)
            nsfs.setns(fd)

        with process(follow) as stranger, surveyed(one) as (scope, _):
            assert [blocker.object for blocker in scope.blockers.outside] == ["uts namespace"]
            assert str(stranger.pid) in scope.blockers.outside[0].reason


def test_inside_reports_errors_as_they_were_and_leaves_no_child() -> None:
    with process(lambda: nsfs.unshare(CLONE_NEWUTS)) as one:
        before = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()

        def fail() -> int:
            return os.open("/there/is/no/such/file", os.O_RDONLY)

        with pytest.raises(FileNotFoundError):
            inside(one.pid, ["uts"], fail, int)
        with pytest.raises(RuntimeError, match="KeyError"):
            inside(one.pid, ["uts"], lambda: int({"y": 1}["x"]), int)
        with pytest.raises(RuntimeError, match="died there"):
            inside(one.pid, ["uts"], lambda: os._exit(0), int)
        read, write = os.pipe()
        with pytest.raises(TimeoutError):
            inside(one.pid, ["uts"], lambda: len(os.read(read, 1)), int, timeout=0.05)
        os.close(read)
        os.close(write)
        assert Path(f"/proc/self/task/{os.getpid()}/children").read_text().split() == before


def test_machine_names_return() -> None:
    def setup() -> None:
        nsfs.unshare(CLONE_NEWUTS)
        ok(libc.sethostname(b"night\xffly", 8))
        ok(libc.setdomainname(b"example.org", 11))

    with process(setup) as one, target(lambda: nsfs.unshare(CLONE_NEWUTS)) as other:
        record = described(one, "uts")
        assert record == UtsNamespace(b"night\xffly", b"example.org")
        other.play(rebuilt("uts", record))
        assert inside(other.process.pid, ["uts"], read_names, UtsNamespace) == record
    assert read_names() != record


class _Clocks:
    """A child in a new time namespace whose clocks were set."""

    def __init__(self, text: bytes) -> None:
        ready, go = os.pipe(), os.pipe()
        middle = os.fork()
        if middle == 0:
            nsfs.unshare(nsfs.CLONE_NEWTIME)
            Path("/proc/self/timens_offsets").write_bytes(text)
            child = os.fork()
            if child:
                os.write(ready[1], child.to_bytes(4, "little"))
                os._exit(0)
            os.read(go[0], 1)
            os._exit(0)
        os.waitpid(middle, 0)
        self.pid = HostPid(int.from_bytes(os.read(ready[0], 4), "little"))

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)  # we are the subreaper


def _clocks() -> list[int]:
    return [time.clock_gettime_ns(time.CLOCK_MONOTONIC), time.clock_gettime_ns(time.CLOCK_BOOTTIME)]


def test_clocks_go_on() -> None:
    with contextlib.closing(_Clocks(b"monotonic 1000 5\nboottime -3 999999999\n")) as one:
        scope = new_scope([one.pid])
        (record,) = [namespace.body for namespace in survey([one.pid], scope) if namespace.kind == "time"]
        scope.blockers.raise_if_any()
        here = _clocks()
        assert 0 <= here[0] + 1000 * 10**9 + 5 - record.monotonic_ns < 10**9
        assert 0 <= here[1] - 3 * 10**9 + 999999999 - record.boottime_ns < 10**9
    with contextlib.closing(_Clocks(offsets(record, *_clocks()))) as two:
        again = clocks_of(two.pid)
        assert 0 <= again.monotonic_ns - record.monotonic_ns < 10**9
        assert 0 <= again.boottime_ns - record.boottime_ns < 10**9


def test_the_last_process_id_returns(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ready")

    def setup() -> None:
        nsfs.unshare(nsfs.CLONE_NEWPID)
        if os.fork():
            return
        for _ in range(41):
            if os.fork() == 0:
                os._exit(0)
            os.wait()
        with open(tmp_path / "ready", "w"):
            pass
        while True:
            signal.pause()

    with process(setup) as parent:
        (child,) = map(int, Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split())
        try:
            (tmp_path / "ready").read_bytes()
            scope = Scope({HostPid(child): Pid(1)}, {HostPid(child): "1 (test)"})
            prepare([HostPid(child)])
            found = survey([HostPid(child)], scope, ours=[parent.pid])
            scope.blockers.raise_if_any()
            (record,) = [namespace.body for namespace in found if namespace.kind == "pid"]
            assert record.last_pid == 42
            tape = rebuilt("pid", record)
            assert 'write(0, "42\\n"' in "".join(tape.entries())
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_cgroup_namespace_whose_root_is_the_jobs_cgroup_is_described() -> None:
    with process(lambda: nsfs.unshare(nsfs.CLONE_NEWCGROUP)) as one:
        record = described(one, "cgroup")
        assert set(record.paths.values()) == {"/"}
