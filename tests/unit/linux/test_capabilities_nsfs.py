from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from orchestrator.linux import capabilities, nsfs
from orchestrator.linux.proc_misc import read_ns_ids

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def test_effective_agrees_with_capget() -> None:
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capget(header, data) == 0
    effective = data[0] | data[3] << 32
    assert capabilities.effective() == effective
    for cap in range(41):
        assert capabilities.has(cap) == bool(effective >> cap & 1)


def test_names() -> None:
    assert len(capabilities.NAMES) == 41
    assert capabilities.names(1 << 21 | 1 | 1 << 40) == ["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"]
    assert capabilities.names(1 << 50) == ["CAP_50"]
    assert capabilities.names(0) == []


def _in_a_fork(action: Callable[[], None]) -> None:
    """Run the action in a child, so that its namespaces are not ours, and fail with what it raised."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            action()
        except BaseException as error:  # noqa: BLE001
            os.write(writing, repr(error).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        failure = pipe.read().decode()
    os.waitpid(pid, 0)
    assert failure == ""


@pytest.fixture
def own_namespaces() -> Iterator[dict[str, int]]:
    fds = {name: os.open(f"/proc/self/ns/{name}", os.O_RDONLY) for name in nsfs.TYPES}
    yield fds
    for fd in fds.values():
        os.close(fd)


def test_types(own_namespaces: dict[str, int]) -> None:
    assert {name: nsfs.ns_type(fd) for name, fd in own_namespaces.items()} == nsfs.TYPES


def test_a_file_is_no_namespace() -> None:
    with open("/dev/null", "rb") as file, pytest.raises(OSError, match="ioctl") as caught:
        nsfs.ns_type(file.fileno())
    assert "NS_GET_NSTYPE" in caught.value.__notes__[0]


def test_userns_and_parent_of_our_own(own_namespaces: dict[str, int]) -> None:
    fd = nsfs.ns_userns(own_namespaces["uts"])
    try:
        assert os.fstat(fd).st_ino == read_ns_ids(os.getpid())["user"]
        assert not os.get_inheritable(fd)
        assert nsfs.ns_owner_uid(fd) == 0
    finally:
        os.close(fd)
    with pytest.raises(OSError, match="Invalid argument"):
        nsfs.ns_parent(own_namespaces["uts"])
    with pytest.raises(OSError, match="Invalid argument"):
        nsfs.ns_owner_uid(own_namespaces["uts"])


@root_only
@pytest.mark.parametrize("name", sorted(set(nsfs.TYPES) - {"pid", "time", "user"}))
def test_unshare_and_setns_back(name: str, own_namespaces: dict[str, int]) -> None:
    def action() -> None:
        before = read_ns_ids(os.getpid())
        nsfs.unshare(nsfs.TYPES[name])
        after = read_ns_ids(os.getpid())
        assert {key for key in before if before[key] != after[key]} == {name}
        nsfs.setns(own_namespaces[name], nsfs.TYPES[name])
        assert read_ns_ids(os.getpid()) == before

    _in_a_fork(action)


@root_only
def test_pid_and_time_take_hold_of_children() -> None:
    def action() -> None:
        before = read_ns_ids(os.getpid())
        nsfs.unshare(nsfs.CLONE_NEWPID | nsfs.CLONE_NEWTIME)
        after = read_ns_ids(os.getpid())
        assert after["time"] == before["time"]
        assert after["time_for_children"] != before["time_for_children"]
        # No process is in the new PID namespace yet, so procfs cannot name it.
        assert "pid_for_children" not in after
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
            inside = read_ns_ids(process.pid)
            process.kill()
        assert inside["pid"] == read_ns_ids(os.getpid())["pid_for_children"] != before["pid"]

    _in_a_fork(action)


def test_user_namespace_and_its_parent(own_namespaces: dict[str, int]) -> None:
    def action() -> None:
        try:
            nsfs.unshare(nsfs.CLONE_NEWUSER)
        except PermissionError:
            return
        mine = os.open("/proc/self/ns/user", os.O_RDONLY)
        assert nsfs.ns_type(mine) == nsfs.CLONE_NEWUSER
        # Seen from inside, its parent is out of reach.
        try:
            nsfs.ns_parent(mine)
        except PermissionError:
            pass
        else:
            raise AssertionError("the parent was opened")

    _in_a_fork(action)
    source = (
        "import os; from orchestrator.linux import nsfs; nsfs.unshare(nsfs.CLONE_NEWUSER);"
        " print(flush=True); os.read(0, 1)"
    )
    with subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        told = process.stdout.readline()
        fd = os.open(f"/proc/{process.pid}/ns/user", os.O_RDONLY)
        process.kill()
    if not told:
        os.close(fd)
        pytest.skip("no user namespaces for us")
    try:
        parent = nsfs.ns_parent(fd)
        assert os.fstat(parent).st_ino == os.fstat(own_namespaces["user"]).st_ino
        os.close(parent)
        assert nsfs.ns_owner_uid(fd) == os.getuid()
    finally:
        os.close(fd)


def test_a_refused_call_says_which() -> None:
    with open("/dev/null", "rb") as file, pytest.raises(OSError, match="Invalid argument") as caught:
        nsfs.setns(file.fileno(), nsfs.CLONE_NEWUTS)
    assert "setns" in caught.value.__notes__[0]
    with pytest.raises(OSError, match="Invalid argument") as caught:
        nsfs.unshare(nsfs.CLONE_IO)
    assert "unshare(0x80000000)" in caught.value.__notes__[0]
