from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.linux import cgroupfs
from orchestrator.linux.mountinfo import cgroup1_mount, cgroup2_mount
from orchestrator.linux.proc_misc import cgroup_of

_TIMEOUT_S = 30
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def _until_empty(directory: str) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while any(cgroupfs.read_procs(cgroup) for cgroup in cgroupfs.walk(directory)):
        assert time.monotonic() < deadline


@pytest.fixture
def group() -> Iterator[str]:
    mount = cgroup2_mount()
    if mount is None:
        pytest.skip("no cgroup v2")
    directory = f"{mount}/orch-test-{uuid.uuid4().hex}"
    cgroupfs.create(directory)
    try:
        yield directory
    finally:
        if os.path.exists(directory):
            cgroupfs.kill(directory)
            with cgroupfs.EventsWatch(directory) as watch:
                while watch.clear()["populated"]:
                    assert select.select([watch], [], [], _TIMEOUT_S)[0]
            cgroupfs.remove_tree(directory)


@pytest.fixture
def freezer() -> Iterator[str]:
    mount = cgroup1_mount("freezer")
    if mount is None:
        pytest.skip("no cgroup v1 freezer")
    directory = f"{mount}/orch-test-{uuid.uuid4().hex}"
    cgroupfs.create(directory)
    try:
        yield directory
    finally:
        cgroupfs.set_freezer_state(directory, "THAWED")
        for pid in cgroupfs.read_procs(directory):
            os.kill(pid, signal.SIGKILL)
        _until_empty(directory)
        cgroupfs.remove_tree(directory)


def _wait(watch: cgroupfs.EventsWatch, key: str, value: int) -> None:
    while watch.clear()[key] != value:
        assert select.select([watch], [], [], _TIMEOUT_S)[0], f"{key} did not become {value}"


def test_attach_and_list(group: str, child: subprocess.Popen[bytes]) -> None:
    assert cgroupfs.read_procs(group) == []
    assert not cgroupfs.is_populated(group)
    cgroupfs.attach(group, child.pid)
    assert cgroupfs.read_procs(group) == cgroupfs.read_threads(group) == [child.pid]
    assert cgroupfs.is_populated(group)
    assert cgroupfs.read_events(group) == {"populated": 1, "frozen": 0}
    assert cgroup_of(child.pid)[""].endswith("/" + os.path.basename(group))


def test_walk_and_remove(group: str) -> None:
    for name in ("b", "a", "a/c", "a/c/d"):
        cgroupfs.create(f"{group}/{name}")
    assert cgroupfs.walk(group) == [group, f"{group}/a", f"{group}/a/c", f"{group}/a/c/d", f"{group}/b"]
    with pytest.raises(FileExistsError):
        cgroupfs.create(f"{group}/a")
    cgroupfs.remove_tree(f"{group}/a")
    assert cgroupfs.walk(group) == [group, f"{group}/b"]
    cgroupfs.remove_tree(f"{group}/a")


def test_a_cgroup_in_use_is_not_removed(group: str, child: subprocess.Popen[bytes]) -> None:
    cgroupfs.create(f"{group}/a")
    cgroupfs.attach(f"{group}/a", child.pid)
    with pytest.raises(OSError, match="busy") as caught:
        cgroupfs.remove_tree(group)
    assert caught.value.errno == errno.EBUSY


def test_freeze_is_told_and_holds(group: str, child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    assert child.stdout is not None
    cgroupfs.attach(group, child.pid)
    with cgroupfs.EventsWatch(group) as watch:
        assert select.select([watch], [], [], 0)[0] == []
        cgroupfs.set_frozen(group, True)
        _wait(watch, "frozen", 1)
        assert select.select([watch], [], [], 0)[0] == []
        child.stdin.write(b"x")
        assert select.select([child.stdout], [], [], 0.05)[0] == []
        cgroupfs.set_frozen(group, False)
        _wait(watch, "frozen", 0)
    assert select.select([child.stdout], [], [], _TIMEOUT_S)[0]
    assert child.stdout.read(1) == b"x"


def test_watch_stays_readable_until_cleared(group: str, child: subprocess.Popen[bytes]) -> None:
    with cgroupfs.EventsWatch(group) as watch:
        cgroupfs.attach(group, child.pid)
        for _ in range(2):
            assert select.select([watch], [], [], _TIMEOUT_S)[0] == [watch]
        assert watch.clear()["populated"] == 1
        assert select.select([watch], [], [], 0)[0] == []
        with select.epoll() as outer:
            outer.register(watch.fileno(), select.EPOLLIN | select.EPOLLET)
            child.kill()
            child.wait()
            assert outer.poll(_TIMEOUT_S) == [(watch.fileno(), select.EPOLLIN)]
            assert watch.clear()["populated"] == 0
    watch.close()


def test_watch_of_a_removed_cgroup(group: str) -> None:
    with cgroupfs.EventsWatch(group) as watch:
        cgroupfs.remove_tree(group)
        with pytest.raises(OSError, match="device") as caught:
            watch.clear()
        assert caught.value.errno == errno.ENODEV
    with pytest.raises(FileNotFoundError):
        cgroupfs.EventsWatch(group)


def test_kill_reaches_the_frozen_and_the_nested(group: str) -> None:
    cgroupfs.create(f"{group}/a")
    with (
        subprocess.Popen(["cat"], stdin=subprocess.PIPE) as one,
        subprocess.Popen(["cat"], stdin=subprocess.PIPE) as two,
    ):
        cgroupfs.attach(group, one.pid)
        cgroupfs.attach(f"{group}/a", two.pid)
        with cgroupfs.EventsWatch(group) as watch:
            cgroupfs.set_frozen(group, True)
            _wait(watch, "frozen", 1)
            cgroupfs.kill(group)
            _wait(watch, "populated", 0)
        # Neither is waited for yet: a zombie is in no list.
        assert cgroupfs.read_procs(group) == cgroupfs.read_procs(f"{group}/a") == []
        assert [one.wait(_TIMEOUT_S), two.wait(_TIMEOUT_S)] == [-signal.SIGKILL] * 2


def test_threads_are_listed(group: str) -> None:
    source = "import threading, os; threading.Thread(target=os.read, args=(0, 1)).start(); print(flush=True)"
    with subprocess.Popen(["python3", "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        cgroupfs.attach(group, process.pid)
        threads = cgroupfs.read_threads(group)
        assert cgroupfs.read_procs(group) == [process.pid]
        process.kill()
    assert len(threads) == 2
    assert process.pid in threads


def test_v1_freezer(freezer: str, child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    assert child.stdout is not None
    assert cgroupfs.freezer_state(freezer) == "THAWED"
    cgroupfs.attach(freezer, child.pid)
    assert cgroupfs.read_procs(freezer) == cgroupfs.read_threads(freezer) == [child.pid]
    cgroupfs.set_freezer_state(freezer, "FROZEN")
    deadline = time.monotonic() + _TIMEOUT_S
    while cgroupfs.freezer_state(freezer) != "FROZEN":
        assert time.monotonic() < deadline
    child.stdin.write(b"x")
    assert select.select([child.stdout], [], [], 0.05)[0] == []
    cgroupfs.set_freezer_state(freezer, "THAWED")
    assert child.stdout.read(1) == b"x"


def test_v1_does_not_list_a_zombie(freezer: str, child: subprocess.Popen[bytes]) -> None:
    cgroupfs.attach(freezer, child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert cgroupfs.read_procs(freezer) == []


def test_a_failed_write_says_what_and_where(group: str) -> None:
    with subprocess.Popen(["true"]) as process:
        pass
    with pytest.raises(OSError, match="rocess") as caught:
        cgroupfs.attach(group, process.pid)
    assert caught.value.errno == errno.ESRCH
    assert str(process.pid) in caught.value.__notes__[0]
    assert group in caught.value.__notes__[0]


def test_v2_watch_from_another_thread(group: str, child: subprocess.Popen[bytes]) -> None:
    with cgroupfs.EventsWatch(group) as watch:
        thread = threading.Thread(target=cgroupfs.attach, args=(group, child.pid))
        thread.start()
        _wait(watch, "populated", 1)
        thread.join()


def test_walk_ignores_files_and_links(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "cgroup.procs").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    assert cgroupfs.walk(str(tmp_path)) == [str(tmp_path), str(tmp_path / "a")]
    with pytest.raises(FileNotFoundError):
        cgroupfs.walk(str(tmp_path / "b"))
