from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import threading

import pytest

from orchestrator.linux.kcmp import (
    KCMP_FILE,
    KCMP_FILES,
    KCMP_FS,
    KCMP_SIGHAND,
    KCMP_VM,
    kcmp,
    kcmp_epoll_tfd,
    same_file,
)
from orchestrator.linux.pidfd import pidfd_getfd, pidfd_open, pidfd_send_signal


def test_descriptors_of_one_description() -> None:
    pid = os.getpid()
    reading, writing = os.pipe()
    copy = os.dup(reading)
    again = os.open(f"/proc/self/fd/{reading}", os.O_RDONLY)
    try:
        assert same_file(pid, reading, pid, copy)
        assert not same_file(pid, reading, pid, again)
        assert not same_file(pid, reading, pid, writing)
        order = kcmp(pid, pid, KCMP_FILE, reading, writing)
        assert {order, kcmp(pid, pid, KCMP_FILE, writing, reading)} == {1, 2}
    finally:
        for fd in (reading, writing, copy, again):
            os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        same_file(pid, reading, pid, 0)
    assert "kcmp(" in caught.value.__notes__[0]


def test_a_child_shares_the_pipe_but_not_the_rest(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    assert not same_file(child.pid, 0, os.getpid(), child.stdin.fileno())
    fd = pidfd_open(child.pid)
    try:
        stolen = pidfd_getfd(fd, 0)
    finally:
        os.close(fd)
    assert not os.get_inheritable(stolen)
    assert same_file(child.pid, 0, os.getpid(), stolen)
    os.close(stolen)
    for kind in (KCMP_VM, KCMP_FILES, KCMP_FS, KCMP_SIGHAND):
        assert kcmp(child.pid, os.getpid(), kind) in {1, 2}


def test_threads_share() -> None:
    go = threading.Event()
    thread = threading.Thread(target=go.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        for kind in (KCMP_VM, KCMP_FILES, KCMP_FS, KCMP_SIGHAND):
            assert kcmp(os.getpid(), thread.native_id, kind) == 0
    finally:
        go.set()
        thread.join()


def test_what_an_epoll_watches() -> None:
    pid = os.getpid()
    reading, writing = os.pipe()
    moved = os.dup(reading)
    with select.epoll() as epoll:
        epoll.register(reading, select.EPOLLIN)
        os.close(reading)
        # The registration keeps the number it was made with though that descriptor is gone.
        try:
            assert kcmp_epoll_tfd(pid, moved, pid, epoll.fileno(), reading) == 0
            assert kcmp_epoll_tfd(pid, writing, pid, epoll.fileno(), reading) in {1, 2}
            with pytest.raises(FileNotFoundError):
                kcmp_epoll_tfd(pid, moved, pid, epoll.fileno(), reading, 1)
        finally:
            os.close(moved)
            os.close(writing)


def test_pidfd(child: subprocess.Popen[bytes]) -> None:
    fd = pidfd_open(child.pid)
    try:
        assert not os.get_inheritable(fd)
        assert select.select([fd], [], [], 0)[0] == []
        pidfd_send_signal(fd, 0)
        pidfd_send_signal(fd, signal.SIGTERM)
        assert select.select([fd], [], [], 30)[0] == [fd]
        assert child.wait() == -signal.SIGTERM
        with pytest.raises(ProcessLookupError) as caught:
            pidfd_send_signal(fd, 0)
        assert "pidfd_send_signal" in caught.value.__notes__[0]
    finally:
        os.close(fd)
    with pytest.raises(ProcessLookupError):
        pidfd_open(child.pid)


def test_pidfd_getfd_of_a_closed_descriptor(child: subprocess.Popen[bytes]) -> None:
    fd = pidfd_open(child.pid)
    try:
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            pidfd_getfd(fd, 999)
        assert caught.value.errno == errno.EBADF
    finally:
        os.close(fd)
