from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from orchestrator.linux.call import machine, syscall
from orchestrator.linux.proc_fd import list_fds, parse_fdinfo, read_fdinfo, readlink_fd
from orchestrator.linux.syscalls import numbers

_NR = numbers(machine())


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def _info(closing: ExitStack, fd: int) -> dict[str, str]:
    closing.callback(os.close, fd)
    return dict(read_fdinfo(os.getpid(), fd).extra)


def test_descriptors_of_a_child(child: subprocess.Popen[bytes]) -> None:
    fds = list_fds(child.pid)
    assert fds[:3] == [0, 1, 2]
    assert len(fds) == psutil.Process(child.pid).num_fds()
    assert child.stdin is not None
    assert readlink_fd(child.pid, 0) == f"pipe:[{os.fstat(child.stdin.fileno()).st_ino}]"


def test_file_position_flags_mount_and_inode(tmp_path: Path) -> None:
    path = tmp_path / "a"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.truncate(fd, 1 << 40)
        os.lseek(fd, (1 << 40) - 3, os.SEEK_SET)
        info = read_fdinfo(os.getpid(), fd)
        assert info.pos == (1 << 40) - 3
        assert info.flags & (os.O_ACCMODE | os.O_APPEND | os.O_NONBLOCK) == os.O_RDWR | os.O_APPEND | os.O_NONBLOCK
        assert info.flags & os.O_CLOEXEC
        assert info.ino == os.fstat(fd).st_ino
        assert info.extra == ()
        os.set_inheritable(fd, True)
        assert not read_fdinfo(os.getpid(), fd).flags & os.O_CLOEXEC
        os.unlink(path)
        assert readlink_fd(os.getpid(), fd) == f"{path} (deleted)"
    finally:
        os.close(fd)


def test_locks(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "a", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        fcntl.lockf(fd, fcntl.LOCK_EX, 10, 5)
        info = read_fdinfo(os.getpid(), fd)
    finally:
        os.close(fd)
    locks = [value.split() for value in info.all("lock")]
    assert {lock[1] for lock in locks} == {"FLOCK", "POSIX"}
    assert ["5", "14"] in [lock[-2:] for lock in locks]
    assert info.get("lock") == info.all("lock")[0]
    assert info.get("nothing") is None


def test_eventfd(closing: ExitStack) -> None:
    info = _info(closing, os.eventfd(0x1F, os.EFD_SEMAPHORE))
    assert int(info["eventfd-count"], 16) == 0x1F
    assert info["eventfd-semaphore"] == "1"


def test_epoll(closing: ExitStack) -> None:
    epoll = closing.enter_context(select.epoll())
    reading, writing = os.pipe()
    closing.callback(os.close, reading)
    closing.callback(os.close, writing)
    epoll.register(reading, select.EPOLLIN)
    epoll.register(writing, select.EPOLLOUT | select.EPOLLET)
    watched = [value.split() for value in read_fdinfo(os.getpid(), epoll.fileno()).all("tfd")]
    assert {(int(words[0]), int(words[2], 16)) for words in watched} == {
        (reading, select.EPOLLIN | select.EPOLLERR | select.EPOLLHUP),
        (writing, select.EPOLLOUT | select.EPOLLET | select.EPOLLERR | select.EPOLLHUP),
    }


def test_inotify(closing: ExitStack, tmp_path: Path) -> None:
    fd = syscall(_NR["inotify_init1"], os.O_CLOEXEC)
    closing.callback(os.close, fd)
    path = ctypes.create_string_buffer(os.fsencode(tmp_path))
    watch = syscall(_NR["inotify_add_watch"], fd, ctypes.addressof(path), 0x100)
    lines = read_fdinfo(os.getpid(), fd).all("inotify")
    assert len(lines) == 1
    words = dict(word.split(":", 1) for word in lines[0].split())
    assert int(words["wd"]) == watch
    assert int(words["ino"], 16) == tmp_path.stat().st_ino
    assert int(words["mask"], 16) == 0x100


def test_signalfd_and_timerfd(closing: ExitStack) -> None:
    mask = ctypes.c_uint64(1 << signal.SIGUSR1 - 1)
    info = _info(closing, syscall(_NR["signalfd4"], -1, ctypes.addressof(mask), 8, os.O_CLOEXEC))
    assert int(info["sigmask"], 16) == mask.value
    info = _info(closing, syscall(_NR["timerfd_create"], 1, os.O_CLOEXEC))
    assert info["clockid"] == "1"
    assert info["settime flags"] == "00"
    assert info["it_interval"] == "(0, 0)"


def test_pidfd(closing: ExitStack, child: subprocess.Popen[bytes]) -> None:
    assert _info(closing, os.pidfd_open(child.pid))["Pid"] == str(child.pid)


def test_every_descriptor_here_is_understood() -> None:
    for fd in list_fds(os.getpid()):
        try:
            status = os.fstat(fd)
        except OSError:
            continue  # The one that listed them.
        assert read_fdinfo(os.getpid(), fd).ino == status.st_ino


def test_parse_fdinfo_without_an_inode_line() -> None:
    info = parse_fdinfo(b"pos:\t7\nflags:\t02100002\nmnt_id:\t15\neventfd-count:                0\n")
    assert info == (7, 0o2100002, 15, 0, (("eventfd-count", "0"),))


def test_parse_fdinfo_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="fdinfo"):
        parse_fdinfo(b"flags:\t02\npos:\t0\nmnt_id:\t1\n")
