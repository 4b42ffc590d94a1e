from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from orchestrator.linux.call import machine, syscall
from orchestrator.linux.proc_misc import (
    RLIM_INFINITY,
    cgroup_of,
    list_pids,
    list_threads,
    parse_cgroup,
    parse_limits,
    parse_timers,
    read_auxv,
    read_children,
    read_cmdline,
    read_environ,
    read_limits,
    read_loginuid,
    read_ns_ids,
    read_oom_score_adj,
    read_personality,
    read_timers,
    read_timerslack,
)
from orchestrator.linux.syscalls import numbers

_NR = numbers(machine())
_libc = ctypes.CDLL(None, use_errno=True)
_libc.getauxval.restype = ctypes.c_ulong


def test_limits_by_number(child: subprocess.Popen[bytes]) -> None:
    resource.prlimit(child.pid, resource.RLIMIT_NOFILE, (17, 18))
    resource.prlimit(child.pid, resource.RLIMIT_CPU, (1 << 40, resource.prlimit(child.pid, resource.RLIMIT_CPU)[1]))
    limits = read_limits(child.pid)
    assert limits == [tuple(value % 2**64 for value in resource.prlimit(child.pid, number)) for number in range(16)]
    assert limits[resource.RLIMIT_NOFILE] == (17, 18)
    assert RLIM_INFINITY in [hard for _, hard in limits]


def test_limits_that_are_not_understood() -> None:
    with pytest.raises(ValueError, match="limits"):
        parse_limits(b"Limit                     Soft Limit           Hard Limit           Units     \n")


@contextmanager
def _started(arguments: list[str], environment: dict[str, str] | None = None) -> Iterator[int]:
    """A cat that has started up: until exec is all done, a process shows no arguments and no environment."""
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        assert process.stdout.read(1) == b"\n"
        yield process.pid
        process.kill()


def test_arguments_and_environment() -> None:
    environment = {"A": "1", "EMPTY": "", "B": "x=y\nz"}
    with _started(["cat", "-", "", "a b"], environment) as pid:
        cmdline, environ = read_cmdline(pid), read_environ(pid)
    assert cmdline == b"cat\0-\0\0a b\0"
    assert sorted(environ.split(b"\0")) == sorted([b"", b"A=1", b"EMPTY=", b"B=x=y\nz"])


def test_environment_beyond_one_buffer() -> None:
    environment = {f"V{number}": "x" * 1000 for number in range(200)}
    with _started(["cat"], environment) as pid:
        environ = read_environ(pid)
    assert sorted(environ.split(b"\0")[:-1]) == sorted(f"{k}={v}".encode() for k, v in environment.items())


def test_auxv_agrees_with_libc() -> None:
    words = memoryview(read_auxv(os.getpid())).cast("Q").tolist()
    vector = dict(zip(words[::2], words[1::2], strict=True))
    for key in (3, 6, 9, 25, 33):  # AT_PHDR, AT_PAGESZ, AT_ENTRY, AT_RANDOM, AT_SYSINFO_EHDR
        assert vector[key] == _libc.getauxval(key)
    assert vector[6] == os.sysconf("SC_PAGESIZE")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_files_of_a_zombie(zombie: int) -> None:
    for read in (read_auxv, read_cmdline, read_environ):
        try:
            assert read(zombie) == b""
        except ProcessLookupError:
            pass
    assert "net" not in read_ns_ids(zombie)
    assert list_threads(zombie) == [zombie]


class _sigevent(ctypes.Structure):
    _fields_ = (
        ("sigev_value", ctypes.c_uint64),
        ("sigev_signo", ctypes.c_int),
        ("sigev_notify", ctypes.c_int),
        ("sigev_notify_thread_id", ctypes.c_int),
        ("pad", ctypes.c_char * 44),
    )


_SIGEV_SIGNAL, _SIGEV_NONE, _SIGEV_THREAD, _SIGEV_THREAD_ID = 0, 1, 2, 4


@pytest.fixture
def timers() -> Iterator[list[int]]:
    """Timer ids to delete."""
    ids: list[int] = []
    yield ids
    for number in ids:
        syscall(_NR["timer_delete"], number)


def _timer(timers: list[int], clock: int, event: _sigevent | None) -> int:
    number = ctypes.c_int()
    syscall(_NR["timer_create"], clock, ctypes.addressof(event) if event else 0, ctypes.addressof(number))
    timers.append(number.value)
    return number.value


def test_timers(timers: list[int]) -> None:
    pid, tid = os.getpid(), threading.get_native_id()
    assert ctypes.sizeof(_sigevent) == 64
    assert read_timers(pid) == []
    by_signal = _timer(timers, 0, _sigevent(0xFFFF_FFFF_1234_5678, 40, _SIGEV_SIGNAL))
    by_thread = _timer(timers, 1, _sigevent(7, 10, _SIGEV_SIGNAL | _SIGEV_THREAD_ID, tid))
    silent = _timer(timers, 7, _sigevent(0, 0, _SIGEV_NONE))
    helper = _timer(timers, 1, _sigevent(1, 32, _SIGEV_THREAD))
    cpu = _timer(timers, 2, _sigevent(2, 10, _SIGEV_SIGNAL))
    default = _timer(timers, 1, None)
    found = {timer.id: timer for timer in read_timers(pid)}
    assert found[by_signal] == (by_signal, 40, 0xFFFF_FFFF_1234_5678, "signal", "pid", pid, 0)
    assert found[by_thread] == (by_thread, 10, 7, "signal", "tid", tid, 1)
    assert found[silent][3:] == ("none", "pid", pid, 7)
    assert found[helper] == (helper, 32, 1, "thread", "pid", pid, 1)
    assert found[cpu][3:5] == ("signal", "pid")
    assert found[default][:5] == (default, 14, default, "signal", "pid")
    assert len(found) == 6


def test_timers_that_are_not_understood() -> None:
    with pytest.raises(ValueError, match="timers"):
        parse_timers(b"ID: 1\nsignal: 60/00007fff86e452a8\nnotify: carrier-pigeon\nClockID: 0\n")


def test_small_numbers(child: subprocess.Popen[bytes]) -> None:
    with open(f"/proc/{child.pid}/oom_score_adj", "w") as file:
        file.write("500")
    assert read_oom_score_adj(child.pid) == 500
    assert read_personality(child.pid) == _libc.personality(ctypes.c_ulong(0xFFFFFFFF))
    assert read_timerslack(os.getpid()) == _libc.prctl(30, 0, 0, 0, 0)  # PR_GET_TIMERSLACK
    assert 0 <= read_loginuid(child.pid) < 2**32


def test_personality_of_a_child() -> None:
    with _started(["setarch", "-R", "cat"]) as pid:
        personality = read_personality(pid)
    assert personality & 0x0040000  # ADDR_NO_RANDOMIZE


def test_namespaces(child: subprocess.Popen[bytes]) -> None:
    ids = read_ns_ids(child.pid)
    assert ids == read_ns_ids(os.getpid())
    assert ids == {name: os.stat(f"/proc/self/ns/{name}").st_ino for name in os.listdir("/proc/self/ns")}
    assert {"pid_for_children", "time_for_children", "net", "mnt"} <= set(ids)


def test_processes_children_and_threads(child: subprocess.Popen[bytes]) -> None:
    pid, tid = os.getpid(), threading.get_native_id()
    if not os.path.exists(f"/proc/{pid}/task/{tid}/children"):
        pytest.skip("the kernel has no CONFIG_PROC_CHILDREN")
    assert child.pid in read_children(pid, tid)
    assert set(read_children(pid, tid)) == {process.pid for process in psutil.Process().children()}
    assert {pid, child.pid, 1} <= set(list_pids())
    assert list_threads(child.pid) == [child.pid]


def test_threads() -> None:
    go = threading.Event()
    threads = [threading.Thread(target=go.wait) for _ in range(3)]
    try:
        for thread in threads:
            thread.start()
        native = {thread.native_id for thread in threads}
        assert native < set(list_threads(os.getpid()))
        assert list_threads(os.getpid()) == sorted(entry.id for entry in psutil.Process().threads())
    finally:
        go.set()
        for thread in threads:
            thread.join()


def test_cgroups_of_a_child(child: subprocess.Popen[bytes]) -> None:
    assert cgroup_of(child.pid) == cgroup_of(os.getpid())


def test_parse_cgroup() -> None:
    assert parse_cgroup(b"12:cpu,cpuacct:/a:b/c\n1:name=systemd:/\n0::/user.slice (deleted)\n") == {
        "cpu,cpuacct": "/a:b/c",
        "name=systemd": "/",
        "": "/user.slice (deleted)",
    }
