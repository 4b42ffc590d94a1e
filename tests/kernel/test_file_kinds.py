"""Every kind of open file: captured from one process, rebuilt in another, and compared."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import select
import signal
import stat
import struct
import time
from pathlib import Path

import pytest

from harness.replay import Process, Target, captured, replayed
from orchestrator.kinds.files.eventfd import try_semaphore
from orchestrator.kinds.files.timerfd import timerfd_gettime
from orchestrator.tape.build import Tape

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


def drain(fd: int) -> bytes:
    os.set_blocking(fd, False)
    parts = []
    try:
        while part := os.read(fd, 1 << 20):
            parts.append(part)
    except BlockingIOError:
        pass
    return b"".join(parts)


def test_a_regular_file_keeps_flags_position_and_sharing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")

    def setup() -> None:
        fd = os.open(path, os.O_RDWR | os.O_APPEND)  # 0
        os.lseek(fd, 4, os.SEEK_SET)
        os.dup2(fd, 7, inheritable=False)
        os.open(path, os.O_RDONLY)  # 1
        os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)  # 2
        os.open(path, os.O_PATH)  # 3

    with replayed(setup, tmp_path / "image") as (image, process):
        assert process.fds() == [0, 1, 2, 3, 7]
        assert len(image.files) == 4
        first, seventh, second = process.take(0), process.take(7), process.take(1)
        assert os.read(first, 3) == b"456"
        assert os.read(seventh, 3) == b"789"
        assert os.read(second, 3) == b"012"
        assert process.link(2) == str(tmp_path)


def test_a_directory_keeps_its_place(tmp_path: Path) -> None:
    for i in range(2000):
        (tmp_path / f"entry-with-a-long-name-{i:04}").touch()
    (tmp_path / "image").touch()
    libc = ctypes.CDLL(None)
    rest = mmap.mmap(-1, 4)

    def setup() -> None:
        fd = os.open(tmp_path, os.O_RDONLY)
        buffer = ctypes.create_string_buffer(8192)
        assert libc.syscall(217, fd, buffer, 8192) > 0  # getdents64
        # what is left, by a descriptor of another open file description at the same place
        other = os.open(tmp_path, os.O_RDONLY)
        os.lseek(other, os.lseek(fd, 0, os.SEEK_CUR), os.SEEK_SET)
        left = 0
        while (got := libc.syscall(217, other, buffer, 8192)) > 0:
            left += got
        rest[:4] = left.to_bytes(4, "little")
        os.close(other)

    with replayed(setup, tmp_path / "image") as (_, process):
        fd = process.take(0)
        buffer = ctypes.create_string_buffer(8192)
        left = 0
        while (got := libc.syscall(217, fd, buffer, 8192)) > 0:
            left += got
        assert left == int.from_bytes(rest[:4], "little") > 0


def test_an_unlinked_file_keeps_contents_and_attributes_once(tmp_path: Path) -> None:
    path = tmp_path / "gone"

    def setup() -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o640)  # 0
        os.pwrite(fd, b"begin", 0)
        os.pwrite(fd, b"middle", 5 << 20)
        os.ftruncate(fd, (8 << 20) + 1)
        os.setxattr(fd, "user.colour", b"blue")
        os.fchown(fd, 12, 34)
        os.fchmod(fd, 0o4751)
        os.open(path, os.O_WRONLY | os.O_APPEND)  # 1
        os.lseek(fd, 3, os.SEEK_SET)
        os.unlink(path)
        os.open(tmp_path, os.O_TMPFILE | os.O_RDWR, 0o600)  # 2

    original = Process(setup)
    with contextlib.closing(original), captured([original], tmp_path / "image") as image:
        image.scope.blockers.raise_if_any()
        assert image.path.stat().st_size < 1 << 20  # holes stay holes
        times = os.stat(f"/proc/{original.pid}/fd/0").st_mtime_ns
        original.close()
        with contextlib.closing(Target()) as target:
            target.rebuild(image)
            process = target.process
            fd, other = process.take(0), process.take(1)
            status = os.fstat(fd)
            assert (status.st_nlink, status.st_size, status.st_uid, status.st_gid) == (0, (8 << 20) + 1, 12, 34)
            assert stat.S_IMODE(status.st_mode) == 0o4751
            assert status.st_mtime_ns == times
            assert status.st_blocks * 512 < 1 << 20
            assert os.getxattr(fd, "user.colour") == b"blue"
            assert os.lseek(fd, 0, os.SEEK_CUR) == 3
            assert os.read(fd, 2) == b"in"
            assert os.pread(fd, 6, 5 << 20) == b"middle"
            assert os.pread(fd, 100, 8 << 20) == b"\0"
            assert os.fstat(other).st_ino == status.st_ino
            os.write(other, b"more")
            assert os.pread(fd, 100, (8 << 20) + 1) == b"more"
            assert os.path.dirname(process.link(0)) == str(tmp_path)
            assert os.fstat(process.take(2)).st_ino != status.st_ino
            assert os.listdir(tmp_path) == ["image"]


def test_an_unlinked_file_whose_directory_is_gone_goes_elsewhere(tmp_path: Path) -> None:
    directory = tmp_path / "directory"

    def setup() -> None:
        directory.mkdir()
        fd = os.open(directory / "file", os.O_RDWR | os.O_CREAT)
        os.write(fd, b"kept")
        os.unlink(directory / "file")
        os.rmdir(directory)

    original = Process(setup)
    with contextlib.closing(original), captured([original], tmp_path / "image") as image:
        original.close()
        with contextlib.closing(Target()) as target:
            target.rebuild(image)
            fd = target.process.take(0)
            assert os.pread(fd, 9, 0) == b"kept"
            assert os.fstat(fd).st_nlink == 0


def test_devices(tmp_path: Path) -> None:
    def setup() -> None:
        for name in ("null", "zero", "full", "random", "urandom"):
            os.open(f"/dev/{name}", os.O_RDWR)

    with replayed(setup, tmp_path / "image") as (_, process):
        assert os.read(process.take(1), 3) == bytes(3)
        with pytest.raises(OSError, match="No space"):
            os.write(process.take(2), b"x")


def test_a_pipe_keeps_contents_size_and_ends(tmp_path: Path) -> None:
    def setup() -> None:
        r, w = os.pipe()  # 0, 1
        fcntl.fcntl(w, 1031, 1 << 18)
        os.set_blocking(w, False)
        os.write(w, b"abc" * 50000)
        os.read(r, 5)
        os.dup2(w, 9)
        os.open("/proc/self/fd/0", os.O_RDONLY | os.O_NONBLOCK)  # 2: a second reader of the same pipe
        os.open("/proc/self/fd/0", os.O_RDWR)  # 3
        os.pipe()  # 4, 5: empty

    with replayed(setup, tmp_path / "image") as (_, process):
        r, w = process.take(0), process.take(1)
        assert fcntl.fcntl(r, 1032) == 1 << 18
        assert drain(r) == (b"abc" * 50000)[5:]
        os.write(w, b"new")
        assert os.read(process.take(2), 9) == b"new"
        os.write(process.take(5), b"other")
        assert os.read(process.take(4), 9) == b"other"


def test_a_full_pipe_stays_full(tmp_path: Path) -> None:
    def setup() -> None:
        _, w = os.pipe2(os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(w, b"x" * 4096)

    with replayed(setup, tmp_path / "image") as (_, process):
        with pytest.raises(BlockingIOError):
            os.write(process.take(1), b"x" * 4096)
        assert drain(process.take(0)) == b"x" * 65536


@pytest.mark.parametrize("lost", [0, 1])
def test_a_pipe_whose_other_end_is_gone(tmp_path: Path, lost: int) -> None:
    def setup() -> None:
        _, w = os.pipe()
        os.write(w, b"last words")
        os.close(lost)

    with replayed(setup, tmp_path / "image") as (_, process):
        if lost:
            fd = process.take(0)
            assert os.read(fd, 99) == b"last words"
            assert os.read(fd, 99) == b""
        else:
            with pytest.raises(BrokenPipeError):
                os.write(process.take(1), b"x")


def test_packets_stay_apart(tmp_path: Path) -> None:
    def setup() -> None:
        _, w = os.pipe2(os.O_DIRECT)
        os.write(w, b"one")
        os.write(w, b"two" * 1000)
        os.write(w, b"3")

    with replayed(setup, tmp_path / "image") as (_, process):
        r = process.take(0)
        assert [os.read(r, 9999) for _ in range(3)] == [b"one", b"two" * 1000, b"3"]
        os.write(process.take(1), b"a")
        os.write(process.take(1), b"b")
        assert os.read(r, 99) == b"a"


def test_a_fifo(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)

    def setup() -> None:
        os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # 0
        w = os.open(path, os.O_WRONLY)  # 1
        os.write(w, b"waiting")

    with replayed(setup, tmp_path / "image") as (_, process):
        r = process.take(0)
        assert os.read(r, 99) == b"waiting"
        os.write(process.take(1), b"more")
        assert os.read(r, 99) == b"more"


def test_eventfds(tmp_path: Path) -> None:
    def setup() -> None:
        os.eventfd(7)
        os.eventfd(3, os.EFD_SEMAPHORE | os.EFD_NONBLOCK)
        big = os.eventfd(0)
        os.eventfd_write(big, (1 << 64) - 2)

    with replayed(setup, tmp_path / "image") as (_, process):
        assert os.eventfd_read(process.take(0)) == 7
        semaphore = process.take(1)
        assert [os.eventfd_read(semaphore) for _ in range(3)] == [1, 1, 1]
        with pytest.raises(BlockingIOError):
            os.eventfd_read(semaphore)
        assert os.eventfd_read(process.take(2)) == (1 << 64) - 2


@pytest.mark.parametrize("count", [0, 1, 2, 5])
@pytest.mark.parametrize("semaphore", [False, True])
def test_a_semaphore_is_found_out_by_use(count: int, semaphore: bool) -> None:
    fd = os.eventfd(count, os.EFD_SEMAPHORE if semaphore else 0)
    assert try_semaphore(fd, count) == semaphore
    assert f"eventfd-count: {count:16x}\n" in Path(f"/proc/self/fdinfo/{fd}").read_text()
    assert os.get_blocking(fd)
    os.close(fd)


def test_timerfds(tmp_path: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    def create(clock: int, flags: int, first: float, interval: float, set_flags: int = 0) -> None:
        fd = libc.timerfd_create(clock, flags)
        value = struct.pack("=qqqq", *(int(x) for v in (interval, first) for x in (v, v % 1 * 1e9)))
        assert libc.timerfd_settime(fd, set_flags, value, None) == 0

    def setup() -> None:
        create(time.CLOCK_MONOTONIC, 0, 1000, 5)
        create(time.CLOCK_MONOTONIC, os.O_NONBLOCK, 0.000001, 0.001)  # expires at once, and again and again
        create(time.CLOCK_MONOTONIC, 0, 0.000001, 0)  # expires once
        create(time.CLOCK_REALTIME, 0, int(time.time()) + 500, 0, 1)  # at a time of day
        create(time.CLOCK_BOOTTIME, 0, 0, 0)  # not armed
        select.select([1, 2], [], [])

    original = Process(setup)
    with contextlib.closing(original), captured([original], tmp_path / "image") as image:
        original.close()
        with contextlib.closing(Target()) as target:
            target.rebuild(image)
            process = target.process
            times = [timerfd_gettime(process.take(fd)) for fd in range(5)]
            assert times[0][0] == 5 * 10**9
            assert 990 * 10**9 < times[0][1] <= 1000 * 10**9
            assert times[1][0] == 10**6
            assert 0 < times[1][1] <= 10**6
            assert int.from_bytes(os.read(process.take(1), 8), "little") >= 1
            assert times[2] == (0, 0)
            assert int.from_bytes(os.read(process.take(2), 8), "little") == 1
            assert 490 * 10**9 < times[3][1] <= 500 * 10**9
            assert "settime flags: 01" in process.fdinfo(3)
            assert times[4] == (0, 0)


def test_a_signalfd(tmp_path: Path) -> None:
    libc = ctypes.CDLL(None)

    def setup() -> None:
        mask = (1 << signal.SIGUSR1 - 1 | 1 << 39).to_bytes(8, "little")
        assert libc.syscall(289, -1, mask, 8, os.O_NONBLOCK) == 0

    with replayed(setup, tmp_path / "image"):
        pass  # the portrait has the mask


def test_an_epoll_keeps_its_registrations(tmp_path: Path) -> None:
    def setup() -> None:
        r, w = os.pipe()  # 0, 1
        event = os.eventfd(0)  # 2
        inner = select.epoll()  # 3
        outer = select.epoll()  # 4
        signal_fd = ctypes.CDLL(None).syscall(289, -1, bytes(8), 8, 0)  # 5
        inner.register(r, select.EPOLLIN | select.EPOLLET)
        inner.register(event, select.EPOLLIN | select.EPOLLOUT | select.EPOLLONESHOT)
        outer.register(inner.fileno(), select.EPOLLIN)
        outer.register(signal_fd, select.EPOLLIN)
        outer.register(w, select.EPOLLOUT | select.EPOLLEXCLUSIVE)
        moved = os.dup(r)  # 6
        inner.register(moved, select.EPOLLIN)
        os.dup2(moved, 20)
        os.close(moved)  # registered as 6, alive as 0 and 20
        assert (event, select.EPOLLOUT) in inner.poll(0)  # disarms it
        os.write(w, b"x")
        setup.keep = inner, outer  # type: ignore[attr-defined]

    with replayed(setup, tmp_path / "image") as (_, process):
        inner = select.epoll.fromfd(process.take(3))
        assert sorted(inner.poll(0)) == [(0, select.EPOLLIN), (6, select.EPOLLIN)]
        assert sorted(inner.poll(0)) == [(6, select.EPOLLIN)]  # 0 is edge-triggered
        outer = select.epoll.fromfd(process.take(4))
        assert sorted(outer.poll(0)) == [(1, select.EPOLLOUT), (3, select.EPOLLIN)]


def test_a_disarmed_oneshot_does_not_fire_for_a_hangup(tmp_path: Path) -> None:
    def setup() -> None:
        r, w = os.pipe()
        poll = select.epoll()
        poll.register(r, select.EPOLLIN | select.EPOLLONESHOT)
        os.close(w)
        assert poll.poll(0) == [(r, select.EPOLLHUP)]
        setup.keep = poll  # type: ignore[attr-defined]

    original = Process(setup)
    with contextlib.closing(original), captured([original], tmp_path / "image") as image:
        original.close()
        with contextlib.closing(Target()) as target:
            target.rebuild(image)
            assert select.epoll.fromfd(target.process.take(2)).poll(0) == []


def test_an_epoll_that_waits_for_a_file_nobody_has(tmp_path: Path) -> None:
    def setup() -> None:
        r, _ = os.pipe()
        poll = select.epoll()
        poll.register(r, select.EPOLLIN)
        setup.keep = poll  # type: ignore[attr-defined]

    original = Process(setup)
    with contextlib.closing(original):
        kept = original.take(0)  # keeps it alive
        target = Target(original)
        tape = Tape()
        tape.close(0)
        target.play(tape)
        with captured([original], tmp_path / "image") as image:
            text = "\n".join(map(str, image.scope.blockers.unsupported))
            assert "it waits for a file, added as fd 0, that no process of the job has open" in text
        os.close(kept)
