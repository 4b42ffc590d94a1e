"""Every kind of open file: captured from one process, rebuilt in another, and compared."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import re
import resource
import select
import signal
import socket
import stat
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from harness.replay import Image, Process, Target, captured, replayed
from orchestrator.errors import CannotHonour, FileChanged, FileMissing, ResourceTaken
from orchestrator.ids import FarAddr, ObjectId
from orchestrator.kinds.files.depot import check_files
from orchestrator.kinds.files.eventfd import try_semaphore
from orchestrator.kinds.files.external import device_key, terminal_key
from orchestrator.kinds.files.kind import Depot, Owner
from orchestrator.kinds.files.leak import outside_holders, report_leaks
from orchestrator.kinds.files.locks import F_OFD_SETLK
from orchestrator.kinds.files.pidfd import PidFd
from orchestrator.kinds.files.procfile import ProcFile
from orchestrator.kinds.files.table import FileCollector
from orchestrator.kinds.files.timerfd import timerfd_gettime
from orchestrator.kinds.memory.shared import open_shared, shared_object
from orchestrator.linux import tuntap
from orchestrator.linux.nsfs import CLONE_NEWNET
from orchestrator.linux.proc_maps import read_maps
from orchestrator.tape.build import Tape

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


def comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def drain(fd: int) -> bytes:
    os.set_blocking(fd, False)
    parts = []
    try:
        while part := os.read(fd, 1 << 20):
            parts.append(part)
    except BlockingIOError:
        pass
    return b"".join(parts)


def keep_only(wanted: list[int], at: int) -> None:
    """Close all descriptors but these, which come to lie at ``at`` and behind."""
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD, 4000) for fd in wanted]
    os.closerange(0, 4000)
    for i, fd in enumerate(moved):
        os.dup2(fd, at + i)
    os.closerange(4000, 8000)


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


def test_nobody_can_write_to_an_unlinked_file_that_was_only_read(tmp_path: Path) -> None:
    """As an executable it would be refused to prctl(PR_SET_MM_EXE_FILE)."""
    program = tmp_path / "program"
    program.write_bytes(Path("/bin/true").read_bytes())
    program.chmod(0o755)

    def setup() -> None:
        os.open(program, os.O_RDONLY)
        program.unlink()

    def lease(depot: Depot, tape: Tape) -> None:
        slot = depot.slot(ObjectId(0))
        tape.fcntl(slot, fcntl.F_SETLEASE, fcntl.F_RDLCK)  # EAGAIN where somebody has it open for writing
        tape.fcntl(slot, fcntl.F_SETLEASE, fcntl.F_UNLCK)

    original = Process(setup)
    with contextlib.closing(original), captured([original], tmp_path / "image") as image:
        original.close()
        with contextlib.closing(Target()) as target:
            target.rebuild(image, map_before_settling=lease)


def test_paths_without_open_files_behind_them(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("nowhere")

    def setup() -> None:
        for name in ("socket", "fifo", "link"):
            os.open(tmp_path / name, os.O_PATH | os.O_NOFOLLOW)
        os.open("/dev/null", os.O_PATH)

    with replayed(setup, tmp_path / "image"):
        pass
    listener.close()


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


def test_removed_fifos_and_directories(tmp_path: Path) -> None:
    fifo, directory = tmp_path / "fifo", tmp_path / "directory"

    def setup() -> None:
        directory.mkdir()
        (directory / "below").mkdir(0o751)
        os.mkfifo(fifo, 0o640)
        w = os.open(fifo, os.O_RDWR)  # 0
        os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)  # 1
        os.write(w, b"in between")
        os.open(directory / "below", os.O_RDONLY | os.O_DIRECTORY)  # 2
        os.open("/proc/self/fd/2", os.O_RDONLY | os.O_CLOEXEC)  # 3
        (directory / "below").rmdir()
        directory.rmdir()
        fifo.unlink()

    original = Process(setup)
    with contextlib.closing(original), captured([original], tmp_path / "image") as image:
        image.scope.blockers.raise_if_any()
        before = original.portrait()
        original.close()
        with contextlib.closing(Target()) as target:
            target.rebuild(image)
            after = target.process.portrait()
            assert [text.partition(" same ")[2] for text in after.values()] == [
                text.partition(" same ")[2] for text in before.values()
            ]
            reader, directory_fd, again = (target.process.take(fd) for fd in (1, 2, 3))
            assert os.read(reader, 99) == b"in between"
            os.write(target.process.take(0), b"more")
            assert os.read(reader, 99) == b"more"
            assert stat.S_IMODE(os.fstat(reader).st_mode) == 0o640
            assert stat.S_IMODE(os.fstat(directory_fd).st_mode) == 0o751
            assert os.fstat(directory_fd).st_ino == os.fstat(again).st_ino
            assert target.process.link(2).endswith(" (deleted)")
            with pytest.raises(FileNotFoundError):
                os.open("new", os.O_CREAT | os.O_RDWR, dir_fd=directory_fd)
    assert os.listdir(tmp_path) == ["image"]


def test_files_that_show_their_process(tmp_path: Path) -> None:
    libc = ctypes.CDLL(None)

    def setup() -> None:
        mask = (1 << signal.SIGUSR1 - 1).to_bytes(8, "little")
        poll = select.epoll()  # 0
        me = os.pidfd_open(os.getpid(), os.O_NONBLOCK)  # 1
        os.open(f"/proc/{os.getpid()}/comm", os.O_RDWR)  # 2
        os.dup2(2, 6)
        os.lseek(2, 3, os.SEEK_SET)
        os.open("/proc/self/fd", os.O_RDONLY)  # 3
        assert libc.syscall(289, -1, mask, 8, 0) == 4  # signalfd
        os.dup2(me, 5)
        poll.register(me, select.EPOLLIN)
        poll.register(4, select.EPOLLIN)
        setup.keep = poll  # type: ignore[attr-defined]

    original = Process(setup)
    with contextlib.closing(original), captured([original], tmp_path / "image") as image:
        image.scope.blockers.raise_if_any()
        before = {fd: text.replace(str(original.pid), "PID") for fd, text in original.portrait().items()}
        old = original.pid
        original.close()
        target = Target()
        pid = target.process.pid
        with contextlib.closing(target):
            # In a restore the process ids are the same; here they are not.
            for i, file in enumerate(image.files):
                match file.body:
                    case PidFd(pid=number) if number == old:
                        image.files[i] = msgspec.structs.replace(file, body=PidFd(pid))
                    case ProcFile(path=path):
                        image.files[i] = msgspec.structs.replace(file, body=ProcFile(path.replace(str(old), str(pid))))
            target.rebuild(image)
            assert {fd: text.replace(str(pid), "PID") for fd, text in target.process.portrait().items()} == before
            assert os.read(target.process.take(6), 99) == Path(f"/proc/{pid}/comm").read_bytes()[3:]
            poll = select.epoll.fromfd(target.process.take(0))
            assert poll.poll(0) == []
            pidfd = target.process.take(1)
        assert select.select([pidfd], [], [], 5)[0] == [pidfd]
        os.close(pidfd)


def test_inotify(tmp_path: Path) -> None:
    watched, single = tmp_path / "watched", tmp_path / "single"
    watched.mkdir()
    single.touch()
    libc = ctypes.CDLL(None)
    all_but_open = 0xFCE  # the rebuild itself opens and reads

    def setup() -> None:
        fd = libc.inotify_init1(os.O_NONBLOCK)
        for _ in range(1500):
            libc.inotify_rm_watch(fd, libc.inotify_add_watch(fd, os.fsencode(tmp_path), 0x400))
        assert libc.inotify_add_watch(fd, os.fsencode(watched), all_but_open) == 1501
        libc.inotify_rm_watch(fd, libc.inotify_add_watch(fd, os.fsencode(tmp_path), 0x400))
        assert libc.inotify_add_watch(fd, os.fsencode(single), 0x2 | 1 << 31) == 1503
        drain(fd)
        os.set_blocking(fd, False)

    with replayed(setup, tmp_path / "image") as (_, process):
        fd = process.take(0)
        assert drain(fd) == b""
        (watched / "new").touch()
        with single.open("a") as file:
            file.write("x")
            file.flush()
            file.write("y")
        events = drain(fd)
        seen = []
        while events:
            number, mask, _, size = struct.unpack_from("=iIII", events)
            seen.append((number, mask, events[16 : 16 + size].rstrip(b"\0")))
            events = events[16 + size :]
        assert seen == [
            (1501, 0x100, b"new"),  # IN_CREATE
            (1501, 0x8, b"new"),  # IN_CLOSE_WRITE
            (1503, 0x2, b""),  # IN_MODIFY, once
            (1503, 0x8000, b""),  # IN_IGNORED
        ]


def test_an_inotify_with_unread_events_or_lost_files(tmp_path: Path) -> None:
    libc = ctypes.CDLL(None)
    lost = tmp_path / "lost"

    def setup() -> None:
        lost.write_bytes(bytes(4096))
        kept = os.open(lost, os.O_RDONLY)
        first, second = libc.inotify_init1(0), libc.inotify_init1(0)
        libc.inotify_add_watch(second, os.fsencode(lost), 0x2)
        libc.inotify_add_watch(first, os.fsencode(tmp_path), 0x200)
        setup.mapped = mmap.mmap(kept, 0, prot=mmap.PROT_READ)  # type: ignore[attr-defined]
        lost.unlink()
        keep_only([kept, first, second], 0)
        os.close(0)  # a mapping keeps the file

    original = Process(setup)
    with contextlib.closing(original), captured([original], tmp_path / "image") as image:
        first, second = names(image).splitlines()
        assert "fd 1 " in first
        assert "32 bytes of events" in first
        assert "fd 2 " in second
        assert "to which no path leads" in second


def test_a_fanotify_group_with_unread_events_or_lost_files(tmp_path: Path) -> None:
    libc = ctypes.CDLL(None)

    def setup() -> None:
        for number, name in enumerate(("told", "lost")):
            assert libc.syscall(300, 2, 0) == number
            (tmp_path / name).touch()
            assert libc.syscall(301, number, 1, ctypes.c_uint64(0x20), -100, os.fsencode(tmp_path / name)) == 0
        os.close(os.open(tmp_path / "told", os.O_RDONLY))
        os.link(tmp_path / "lost", tmp_path / "other")  # an inode that stays, and whose handle leads to its new name
        (tmp_path / "lost").unlink()

    original = Process(setup)
    with contextlib.closing(original):
        with captured([original], tmp_path / "image") as image:
            (line,) = names(image).splitlines()
            assert "24 bytes of events" in line
            assert "--external fanotify" in line
        with captured([original], tmp_path / "image", externals=frozenset(["fanotify"])) as image:
            assert names(image) == ""
            with contextlib.closing(Target()) as target:
                target.rebuild(image)
                assert "fanotify ino:" in target.process.fdinfo(0)
                assert "fanotify ino:" in target.process.fdinfo(1)
                (tmp_path / "told").unlink()
                with pytest.raises(FileMissing, match="told"):
                    check_files(image.files)


def test_processes_outside_or_gone(tmp_path: Path) -> None:
    def setup() -> None:
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.pidfd_open(child)  # 0
        os.open(f"/proc/{child}/stat", os.O_RDONLY)  # 1
        os.waitpid(child, 0)
        os.pidfd_open(os.getppid())  # 2
        os.open(f"/proc/{os.getppid()}/stat", os.O_RDONLY)  # 3

    original = Process(setup)
    with contextlib.closing(original), captured([original], tmp_path / "image") as image:
        lines = {re.findall(r"fd (\d+) ", line)[0]: line for line in names(image).splitlines()}
        assert sorted(lines) == list("23")
        assert f"process {os.getpid()}, which is not in the job" in lines["2"]
        assert "has ended or is outside" in lines["3"]


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
        create(time.CLOCK_BOOTTIME, 0, 0, 7)  # not armed
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
            assert times[4][1] == 0


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


def test_memfds_and_their_mappings_are_one_object(tmp_path: Path) -> None:
    def setup() -> None:
        fd = os.memfd_create("data", os.MFD_ALLOW_SEALING)  # 0
        os.ftruncate(fd, 1 << 20)
        mapping = mmap.mmap(fd, 1 << 20)
        mapping[5000:5005] = b"hello"
        os.lseek(fd, 5001, os.SEEK_SET)
        os.close(1)  # mmap has made a duplicate
        os.open("/proc/self/fd/0", os.O_RDONLY)  # 1
        sealed = os.memfd_create("sealed", os.MFD_ALLOW_SEALING)  # 2
        os.write(sealed, b"for ever")
        fcntl.fcntl(sealed, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW)
        os.memfd_create("plain")  # 3
        setup.keep = mapping  # type: ignore[attr-defined]

    original = Process(setup)
    with contextlib.closing(original):
        before = original.portrait()
        line = next(line for line in read_maps(original.pid) if line.path == b"/memfd:data")
        ids: list[ObjectId] = []

        def also(collector: FileCollector) -> list[ObjectId]:
            ids.append(shared_object(collector.scope, original.pid, line))
            ids.append(shared_object(collector.scope, original.pid, line))
            return []

        with captured([original], tmp_path / "image", also=also) as image:
            original.close()
            assert len(image.objects) == 3
            assert {getattr(file.body, "object", None) for file in image.files[:2]} == {ids[0]} == {ids[1]}
            assert image.path.stat().st_size < 100_000

            def map_it(depot: Depot, tape: Tape) -> None:
                tape.mmap(0x20_0000_0000, 1 << 20, 3, 0x11, open_shared(ids[0], depot), 0)

            with contextlib.closing(Target()) as target:
                target.rebuild(image, map_before_settling=map_it)
                process = target.process
                assert process.portrait() == before
                mapped = next(line for line in read_maps(process.pid) if line.path == b"/memfd:data")
                assert mapped.inode == os.fstat(process.take(0)).st_ino
                assert os.read(process.take(0), 4) == b"ello"
                sealed = process.take(2)
                assert fcntl.fcntl(sealed, fcntl.F_GET_SEALS) == 0xD
                assert os.pread(sealed, 99, 0) == b"for ever"
                assert fcntl.fcntl(process.take(3), fcntl.F_GET_SEALS) == fcntl.F_SEAL_SEAL


def test_a_seal_against_future_writing_lets_the_mapping_be_made_first(tmp_path: Path) -> None:
    future_write = 0x10

    def setup() -> None:
        fd = os.memfd_create("ring", os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, 4096)
        setup.keep = mmap.mmap(fd, 4096)  # type: ignore[attr-defined]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, future_write | fcntl.F_SEAL_SEAL)

    original = Process(setup)
    with contextlib.closing(original), captured([original], tmp_path / "image") as image:
        original.close()

        def map_it(depot: Depot, tape: Tape) -> None:
            tape.mmap(0x20_0000_0000, 4096, 3, 0x11, open_shared(ObjectId(0), depot), 0)

        with contextlib.closing(Target()) as target:
            target.rebuild(image, map_before_settling=map_it)
            assert fcntl.fcntl(target.process.take(0), fcntl.F_GET_SEALS) == future_write | fcntl.F_SEAL_SEAL


def test_anonymous_shared_memory_is_the_same_for_all_and_keeps_its_name(tmp_path: Path) -> None:
    mapping = mmap.mmap(-1, 3 << 20)
    mapping[(1 << 20) + 7 : (1 << 20) + 11] = b"here"
    first, second = Process(lambda: None), Process(lambda: None)
    with contextlib.closing(first), contextlib.closing(second):
        ids: list[ObjectId] = []

        def also(collector: FileCollector) -> list[ObjectId]:
            for process in (first, second):
                line = next(x for x in read_maps(process.pid) if x.path == b"/dev/zero" and x.end - x.start == 3 << 20)
                ids.append(shared_object(collector.scope, process.pid, line))
            return []

        with captured([first, second], tmp_path / "image", also=also) as image:
            mapping.close()
            assert ids == [0, 0]

            def map_it(depot: Depot, tape: Tape) -> None:
                for at in (0x20_0000_0000, 0x20_1000_0000):
                    tape.mmap(at, 3 << 20, 3, 0x11, open_shared(ids[0], depot), 0)

            with contextlib.closing(Target()) as target:
                target.rebuild(image, memory=ids[:1], map_before_settling=map_it)
                lines = [x for x in read_maps(target.process.pid) if x.start in (0x20_0000_0000, 0x20_1000_0000)]
                assert [(x.path, x.deleted) for x in lines] == [(b"/dev/zero", True)] * 2
                assert lines[0].inode == lines[1].inode
                with open(f"/proc/{target.process.pid}/mem", "r+b", buffering=0) as memory:
                    memory.seek(0x20_0000_0000 + (1 << 20) + 7)
                    assert memory.read(4) == b"here"
                    memory.seek(0x20_0000_0000)
                    memory.write(b"both")
                    memory.seek(0x20_1000_0000)
                    assert memory.read(4) == b"both"


def test_mapped_files_are_recorded_once_for_each_access(tmp_path: Path) -> None:
    path, gone = tmp_path / "mapped", tmp_path / "gone"
    path.write_bytes(b"m" * 8192)
    gone.write_bytes(b"g" * 8192)

    def setup() -> None:
        for name in (path, gone):
            fd = os.open(name, os.O_RDWR)
            setup.__dict__[name.name] = mmap.mmap(fd, 8192)
        gone.unlink()
        os.closerange(0, 100)

    first, second = Process(setup), Process(lambda: None)
    with contextlib.closing(first), contextlib.closing(second):

        def also(collector: FileCollector) -> list[ObjectId]:
            lines = {line.path: line for line in read_maps(first.pid)}
            mapped, deleted = lines[os.fsencode(path)], lines[os.fsencode(gone)]
            python = next(line for line in read_maps(second.pid) if b"/python3" in line.path)
            return [
                collector.mapped(first.pid, mapped, writable=True),
                collector.mapped(first.pid, mapped, writable=False),
                collector.mapped(first.pid, mapped, writable=True),
                collector.mapped(first.pid, deleted, writable=True),
                collector.mapped(second.pid, python, writable=False),
            ]

        with captured([first, second], tmp_path / "image", also=also) as image:
            image.scope.blockers.raise_if_any()
            assert image.mapped == [0, 1, 0, 2, 3]

            def map_it(depot: Depot, tape: Tape) -> None:
                tape.mmap(0x20_0000_0000, 8192, 3, 0x01 | 0x10, depot.slot(ObjectId(0)), 0)
                tape.mmap(0x20_1000_0000, 8192, 3, 0x01 | 0x10, depot.slot(ObjectId(2)), 0)

            with contextlib.closing(Target()) as target:
                target.rebuild(image, map_before_settling=map_it)
                lines = {x.start: x for x in read_maps(target.process.pid)}
                assert lines[FarAddr(0x20_0000_0000)].path == os.fsencode(path)
                assert lines[FarAddr(0x20_1000_0000)].deleted
                with open(f"/proc/{target.process.pid}/mem", "rb", buffering=0) as memory:
                    memory.seek(0x20_1000_0000)
                    assert memory.read(8192) == b"g" * 8192


def test_open_files_are_shared_between_processes(tmp_path: Path) -> None:
    """Two processes have a pipe, a file and 200 eventfds in common, under different numbers."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    wanted = [os.eventfd(0), *os.pipe(), os.open(path, os.O_RDONLY), *(os.eventfd(0) for _ in range(200))]

    try:
        first = Process(lambda: keep_only(wanted, 0), close=False)
        second = Process(lambda: keep_only(wanted[::-1], 1), close=False)
    finally:
        for fd in wanted:
            os.close(fd)
    count = len(wanted)
    with contextlib.closing(first), contextlib.closing(second), captured([first, second], tmp_path / "image") as image:
        image.scope.blockers.raise_if_any()
        assert len(image.files) == count
        a, b = image.tables
        assert [x.file for x in a.descriptors] == [x.file for x in reversed(b.descriptors)]
        first.close()
        second.close()
        with contextlib.closing(Target()) as target:
            target.rebuild(image, step=1000)
            os.eventfd_write(target.process.take(0), 3)
            assert os.eventfd_read(target.process.take(1000 + count)) == 3
            assert os.read(target.process.take(3), 5) == b"01234"
            assert os.read(target.process.take(1000 + count - 3), 5) == b"56789"


def names(image: Image) -> str:
    return "\n".join(map(str, [*image.scope.blockers.unsupported, *image.scope.blockers.outside]))


def test_external_files_are_handed_over(tmp_path: Path) -> None:
    inner, outer = os.pipe()
    os.set_blocking(inner, False)
    stdout = tmp_path / "stdout"
    out = os.open(stdout, os.O_WRONLY | os.O_CREAT)
    null = os.open("/dev/null", os.O_RDONLY)

    original = Process(lambda: keep_only([inner, out, null], 0), close=False)
    for fd in (inner, out, null):
        os.close(fd)
    status = stdout.stat()
    key = f"pipe[{os.fstat(outer).st_ino}]"
    device = os.stat("/dev/null")
    stdio = {(status.st_dev, status.st_ino, 0): 1, (device.st_dev, device.st_ino, device.st_rdev): 0}
    with (
        contextlib.closing(original),
        captured([original], tmp_path / "image", externals=frozenset([key]), stdio=stdio) as image,
    ):
        image.scope.blockers.raise_if_any()
        report_leaks(image.scope, outside_holders([original.pid]))
        image.scope.blockers.raise_if_any()
        assert [getattr(file.body, "key", None) for file in image.files] == [key, "stdio[1]", None]
        original.close()
        new_reader, new_writer = os.pipe()
        new_out = os.open(tmp_path / "new", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        with contextlib.closing(Target()) as target:
            target.rebuild(image, inherited={key: new_reader, "stdio[1]": new_out})
            assert not os.get_blocking(target.process.take(0))
            assert fcntl.fcntl(target.process.take(1), fcntl.F_GETFL) & (os.O_NONBLOCK | os.O_APPEND) == os.O_APPEND
            os.write(new_writer, b"through")
            assert os.read(target.process.take(0), 99) == b"through"
            os.write(target.process.take(1), b"printed")
            assert (tmp_path / "new").read_bytes() == b"printed"
        with contextlib.closing(Target()) as target, pytest.raises(CannotHonour, match=re.escape(key)):
            target.rebuild(image, inherited={"stdio[1]": new_out})
        for fd in (outer, new_reader, new_writer, new_out):
            os.close(fd)


def test_what_is_shared_with_outsiders_is_named(tmp_path: Path) -> None:
    pipe = os.pipe()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    wanted = [
        pipe[0],
        os.memfd_create("together"),
        os.open(fifo, os.O_RDWR),
        os.open(tmp_path, os.O_RDWR | os.O_TMPFILE),
        os.open("/dev/null", os.O_RDWR),
    ]
    inside = Process(lambda: keep_only(wanted, 0), close=False)
    outside = Process(lambda: keep_only([pipe[1], *wanted[1:]], 10), close=False)
    for fd in (*pipe, *wanted[1:]):
        os.close(fd)
    with contextlib.closing(inside), contextlib.closing(outside):
        holders = outside_holders([inside.pid])
        with captured([inside], tmp_path / "image") as image:
            assert names(image) == ""
            report_leaks(image.scope, holders)
            found = names(image).splitlines()
        assert len(found) == 4
        for line, (fd, key) in zip(found, [(0, "pipe["), (1, None), (2, f"file[{fifo}"), (3, None)], strict=True):
            assert line.startswith(f"{inside.pid} (test): fd {fd} (")
            assert f"shared with {outside.pid} ({comm(outside.pid)}) as fd {fd + 10}, outside" in line
            assert ("--external" in line) == (key is not None)
            assert key is None or key in line
        with captured([inside, outside], tmp_path / "image") as image:
            report_leaks(image.scope, outside_holders([inside.pid, outside.pid]))
            assert names(image) == ""


def test_shared_memory_that_an_outsider_has_mapped(tmp_path: Path) -> None:
    mapping = mmap.mmap(-1, 5 << 20)
    inside, outside = Process(lambda: None), Process(lambda: None)
    mapping.close()
    with contextlib.closing(inside), contextlib.closing(outside):
        line = next(x for x in read_maps(inside.pid) if x.path == b"/dev/zero" and x.end - x.start == 5 << 20)

        def also(collector: FileCollector) -> list[ObjectId]:
            return [shared_object(collector.scope, inside.pid, line)]

        with captured([inside], tmp_path / "image", also=also) as image:
            report_leaks(image.scope, outside_holders([inside.pid]))
            assert f"shared with {outside.pid} ({comm(outside.pid)}) in its memory" in names(image)


def test_everything_that_cannot_be_rebuilt_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "linked"
    libc = ctypes.CDLL(None)

    def setup() -> None:
        os.mkfifo(path)
        os.open(path, os.O_RDWR)  # 0
        os.link(path, tmp_path / "other")
        path.unlink()
        assert libc.syscall(323, 1) == 1  # userfaultfd
        assert libc.unshare(CLONE_NEWNET) == 0
        os.open("/proc/self/ns/net", os.O_RDONLY)  # 2
        assert libc.unshare(CLONE_NEWNET) == 0
        assert libc.syscall(300, 4, 0) == 3  # fanotify_init, FAN_CLASS_CONTENT
        (tmp_path / "decided").touch()
        assert libc.syscall(301, 3, 1, ctypes.c_uint64(0x10000), -100, os.fsencode(tmp_path / "decided")) == 0
        os.open("/dev/loop-control" if os.path.exists("/dev/loop-control") else "/dev/kmsg", os.O_RDONLY)  # 4
        os.open(tmp_path, os.O_RDONLY)  # 5
        fcntl.fcntl(5, fcntl.F_NOTIFY, fcntl.DN_CREATE | fcntl.DN_MULTISHOT)
        setup.context = ctypes.c_ulong(0)  # type: ignore[attr-defined]
        assert libc.syscall(206, 8, ctypes.byref(setup.context)) == 0  # type: ignore[attr-defined]

    original = Process(setup)
    aio = next(line for line in read_maps(original.pid) if line.path == b"/[aio]")

    def also(collector: FileCollector) -> list[ObjectId]:
        assert collector.mapped(original.pid, aio, writable=True) == -1
        return []

    with contextlib.closing(original), captured([original], tmp_path / "image", also=also) as image:
        lines = names(image).splitlines()
        assert "asynchronous I/O" in lines.pop()
        assert [re.findall(r"fd (\d+) ", line)[0] for line in lines] == list("012345")
        for line, reason in zip(
            lines,
            ["other names", "registrations", "namespace", "decides who may open", "device", "F_NOTIFY"],
            strict=True,
        ):
            assert reason in line


def test_a_terminal_of_somebody_else_is_left_outside(tmp_path: Path) -> None:
    master, slave = os.openpty()
    rdev = os.fstat(slave).st_rdev
    key = f"tty[{os.major(rdev)}:{os.minor(rdev)}]"
    original = Process(lambda: keep_only([slave], 0), close=False)
    with contextlib.closing(original):
        with captured([original], tmp_path / "image") as image:
            assert f"--external '{key}'" in names(image)
        with captured([original], tmp_path / "image", externals=frozenset([key])) as image:
            assert names(image) == ""
            with contextlib.closing(Target()) as target:
                target.rebuild(image, inherited={key: slave})
                assert os.isatty(target.process.take(0))
    os.close(master)
    os.close(slave)


def test_what_is_registered_in_a_ring(tmp_path: Path) -> None:
    libc = ctypes.CDLL(None)

    def ring() -> int:
        fd: int = libc.syscall(425, 8, ctypes.create_string_buffer(120))
        if fd < 0:
            raise OSError("no io_uring")
        return fd

    def setup() -> None:
        first, second, third = ring(), ring(), ring()
        eventfd = ctypes.c_int(os.eventfd(0))
        assert libc.syscall(427, first, 4, ctypes.byref(eventfd), 1) == 0
        setup.page = mmap.mmap(-1, mmap.PAGESIZE)  # type: ignore[attr-defined]
        address = ctypes.addressof(ctypes.c_char.from_buffer(setup.page))  # type: ignore[attr-defined]
        buffers = struct.pack("=QIHH24x", address, 8, 7, 0)
        assert libc.syscall(427, second, 22, buffers, 1) == 0
        files = struct.pack("=i", eventfd.value)
        assert libc.syscall(427, third, 2, files, 1) == 0

    original = Process(setup)
    with contextlib.closing(original):
        with captured([original], tmp_path / "image", externals=frozenset(["io_uring"])) as image:
            lines = names(image).splitlines()
            reasons = ["an eventfd is registered", "buffers are provided", "files or buffers are registered"]
            assert [reason in line for line, reason in zip(lines, reasons, strict=True)] == [True] * 3
        with captured([original], tmp_path / "image") as image:
            assert names(image).count("--external io_uring") == 3


def test_a_network_interface_that_is_elsewhere(tmp_path: Path) -> None:
    if not os.path.exists(tuntap.PATH):
        pytest.skip("no tun here")

    def setup() -> None:
        libc = ctypes.CDLL(None)
        assert libc.unshare(CLONE_NEWNET) == 0
        fcntl.ioctl(os.open(tuntap.PATH, os.O_RDWR), tuntap.TUNSETIFF, tuntap.ifreq("away", tuntap.IFF_TUN))
        assert libc.unshare(CLONE_NEWNET) == 0

    original = Process(setup)
    with contextlib.closing(original), captured([original], tmp_path / "image") as image:
        assert "its network interface is in a network namespace that is not the job's own" in names(image)


def test_devices_of_the_machine_are_handed_over(tmp_path: Path) -> None:
    paths = []
    for path in ("/dev/console", "/dev/tty0", "/dev/fuse", "/dev/kvm", "/dev/loop-control"):
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_RDWR | os.O_NOCTTY))
            paths.append(path)
    if not paths:
        pytest.skip("no such device can be opened here")
    numbers = [os.stat(path).st_rdev for path in paths]
    keys = [terminal_key(rdev) if os.major(rdev) in (4, 5) else device_key(rdev) for rdev in numbers]
    original = Process(lambda: [os.open(path, os.O_RDWR | os.O_NOCTTY) for path in paths])
    with contextlib.closing(original):
        with captured([original], tmp_path / "image") as image:
            lines = names(image).splitlines()
            assert len(lines) == len(paths)
            for key in keys:
                assert [line for line in lines if f"--external '{key}'" in line]
        with captured([original], tmp_path / "image", externals=frozenset(keys)) as image:
            assert names(image) == ""
            original.close()
            given = {key: os.open(path, os.O_RDWR | os.O_NOCTTY) for key, path in zip(keys, paths, strict=True)}
            with contextlib.closing(Target()) as target:
                target.rebuild(image, inherited=given)
                links = [target.process.link(fd) for fd in target.process.fds()]
                assert links == paths
            for fd in given.values():
                os.close(fd)


def test_locks_are_taken_again(tmp_path: Path) -> None:
    path = tmp_path / "locked"
    path.write_bytes(bytes(100))

    def setup() -> None:
        a = os.open(path, os.O_RDWR)  # 0
        fcntl.flock(a, fcntl.LOCK_SH)
        b = os.open(tmp_path / "posix", os.O_RDWR | os.O_CREAT)  # 1
        fcntl.lockf(b, fcntl.LOCK_EX, 10, 5)
        fcntl.lockf(b, fcntl.LOCK_SH, 0, 50)
        os.dup2(b, 8)
        c = os.open(path, os.O_RDWR)  # 2
        fcntl.fcntl(c, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 60, 7, 0))

    with replayed(setup, tmp_path / "image") as (image, process):
        assert sum(len(file.locks) for file in image.files) == 2
        assert len(image.tables[0].locks) == 2
        with path.open("rb+") as mine:
            with pytest.raises(BlockingIOError):
                fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with pytest.raises(BlockingIOError):
                fcntl.lockf(mine, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 66)
            fcntl.lockf(mine, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 67)
        with (tmp_path / "posix").open("rb+") as mine:
            with pytest.raises(BlockingIOError):
                fcntl.lockf(mine, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)
            fcntl.lockf(mine, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, 1000)
            fcntl.lockf(mine, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 15)
        assert "POSIX" in process.fdinfo(8)


def test_two_broken_leases_on_one_file(tmp_path: Path) -> None:
    path = tmp_path / "leased"
    path.touch()

    def setup() -> None:
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        for _ in range(2):
            fcntl.fcntl(os.open(path, os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_RDLCK)
        with contextlib.suppress(BlockingIOError):
            os.open(path, os.O_WRONLY | os.O_NONBLOCK)

    original = Process(setup)
    with contextlib.closing(original), captured([original], tmp_path / "image") as image:
        assert "another lease on the same file is being broken" in names(image)


@pytest.mark.parametrize("whole", [True, False])
def test_a_lock_that_somebody_has_taken_meanwhile(tmp_path: Path, whole: bool) -> None:
    path = tmp_path / "locked"
    path.write_bytes(bytes(100))

    def setup() -> None:
        fd = os.open(path, os.O_RDWR)
        if whole:
            fcntl.flock(fd, fcntl.LOCK_EX)
        else:
            fcntl.fcntl(fd, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 60, 7, 0))

    original = Process(setup)
    with contextlib.closing(original), captured([original], tmp_path / "image") as image:
        with pytest.raises(ResourceTaken, match=re.escape(str(path))):
            check_files(image.files)
        original.close()
        check_files(image.files)


def test_signals_of_files_keep_their_owner(tmp_path: Path) -> None:
    def setup() -> None:
        r, _ = os.pipe()
        fcntl.fcntl(r, fcntl.F_SETSIG, signal.SIGRTMIN + 3)
        fcntl.fcntl(r, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)

    original = Process(setup)
    with contextlib.closing(original), captured([original], tmp_path / "image") as image:
        image.scope.blockers.raise_if_any()
        assert image.files[0].owner == Owner(1, original.pid, signal.SIGRTMIN + 3)
        target = Target()
        with contextlib.closing(target):
            # In a restore the process ids are the same; here they are not.
            image.files[0] = msgspec.structs.replace(image.files[0], owner=Owner(1, target.process.pid, 37))
            target.rebuild(image)
            fd = target.process.take(0)
            assert fcntl.fcntl(fd, fcntl.F_GETOWN) == target.process.pid
            assert fcntl.fcntl(fd, fcntl.F_GETSIG) == 37
            assert fcntl.fcntl(fd, fcntl.F_GETFL) == os.O_ASYNC | os.O_NONBLOCK
    original = Process(lambda: (os.pipe(), fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())))
    with contextlib.closing(original), captured([original], tmp_path / "image") as image:
        assert f"its signals go to {os.getpid()}" in names(image)


def test_files_are_checked_before_a_restore(tmp_path: Path) -> None:
    read, written, directory = tmp_path / "read", tmp_path / "written", tmp_path / "directory"
    read.write_bytes(b"12345")
    directory.mkdir()

    def setup() -> None:
        os.open(read, os.O_RDONLY)
        os.write(os.open(written, os.O_WRONLY | os.O_CREAT), b"12345")
        os.open(written, os.O_RDONLY)
        os.open(directory, os.O_RDONLY)
        os.open("/proc/meminfo", os.O_RDONLY)
        os.open("/dev/null", os.O_RDONLY)

    original = Process(setup)
    with contextlib.closing(original), captured([original], tmp_path / "image") as image:
        check_files(image.files)
        written.write_bytes(b"1234567")  # a job that goes on writes on
        (directory / "new").touch()
        check_files(image.files)
        times = read.stat().st_mtime_ns
        read.write_bytes(b"54321")
        with pytest.raises(FileChanged, match="is not the file it was") as caught:
            check_files(image.files)
        assert str(read) in str(caught.value)
        os.utime(read, ns=(times, times))
        check_files(image.files)
        written.write_bytes(b"12")
        with pytest.raises(FileChanged, match="was 5 bytes long and has 2 now"):
            check_files(image.files)
        written.write_bytes(b"12345")
        (directory / "new").unlink()
        directory.rmdir()
        directory.touch()
        with pytest.raises(FileChanged, match="was a directory and is a regular file now"):
            check_files(image.files)
        read.unlink()
        with pytest.raises(FileMissing, match=re.escape(str(read))):
            check_files(image.files)


def test_many_descriptors_are_quick(tmp_path: Path) -> None:
    count = 4000

    def setup() -> None:
        poll = select.epoll()  # 0
        for _ in range(count // 4):
            _, w = os.pipe()
            poll.register(w, select.EPOLLOUT)
            os.dup(w)
            os.eventfd(0)
        setup.keep = poll  # type: ignore[attr-defined]

    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    original = Process(setup)
    with contextlib.closing(original):
        began = time.process_time()
        with captured([original], tmp_path / "image") as image:
            assert time.process_time() - began < 3
            assert len(image.files) == 1 + count // 4 * 3
            assert len(image.tables[0].descriptors) == 1 + count
            before = original.portrait()
            original.close()
            with contextlib.closing(Target()) as target:
                began = time.process_time()
                target.rebuild(image)
                assert time.process_time() - began < 3
                assert target.process.portrait() == before


@contextlib.contextmanager
def mounted(*arguments: str) -> Iterator[None]:
    """Mount something for the time of a test; its target comes last."""
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", arguments[-1]], check=True)


def test_files_of_an_overlay(tmp_path: Path) -> None:
    with mounted("-t", "tmpfs", "none", str(tmp_path)):
        lower, upper, work, merged = (tmp_path / name for name in ("lower", "upper", "work", "merged"))
        for directory in (lower, upper, work, merged):
            directory.mkdir()
        for name in ("read", "written", "unlinked", "renamed"):
            (lower / name).write_bytes(b"contents")
        (lower / "directory").mkdir()

        def setup() -> None:
            os.open(merged / "read", os.O_RDONLY)
            os.lseek(os.open(merged / "written", os.O_RDWR), 3, os.SEEK_SET)
            os.open(merged / "directory", os.O_RDONLY)
            os.write(os.open(merged / "unlinked", os.O_RDWR), b"new")
            os.unlink(merged / "unlinked")
            os.write(os.open(merged / "renamed", os.O_RDWR), b"new")
            os.rename(merged / "renamed", merged / "directory" / "here")
            os.open(merged / "made", os.O_RDWR | os.O_CREAT)

        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        with mounted("-t", "overlay", "none", "-o", options, str(merged)):
            before = tmp_path / "image"
            original = Process(setup)
            with contextlib.closing(original), captured([original], before) as image:
                image.scope.blockers.raise_if_any()
                portrait = original.portrait()
                original.close()
                with contextlib.closing(Target()) as target:
                    target.rebuild(image)
                    again = target.process.portrait()
                    again[3] = re.sub(r"/[^/]*(?= \(deleted)", "/unlinked", again[3])
                    assert again == portrait
                    assert os.pread(target.process.take(0), 99, 0) == b"contents"
                    assert os.pread(target.process.take(3), 99, 0) == b"newtents"
                    assert os.pread(target.process.take(4), 99, 0) == b"newtents"


def test_a_file_that_is_mounted_over_another(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"from elsewhere")
    target.touch()
    with mounted("--bind", str(source), str(target)):

        def setup() -> None:
            os.lseek(os.open(target, os.O_RDONLY), 5, os.SEEK_SET)
            os.open(source, os.O_RDWR)

        with replayed(setup, tmp_path / "image") as (_, process):
            assert os.read(process.take(0), 99) == b"elsewhere"
            assert process.link(0) == str(target)
