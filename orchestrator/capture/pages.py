"""Move pages from held tasks into the image.

A large process writes its own pages: one copy, nothing of it in Python. For a small one a tape costs
more than it saves, and orch reads its pages itself; so it does where the task could not write: no
descriptor free, a limit on file sizes, memory without read permission.
"""

from __future__ import annotations

import array
import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence

from orchestrator.capture.hold import HeldProcess
from orchestrator.errors import CaptureFailed
from orchestrator.ids import FarAddr
from orchestrator.kinds.memory.record import PageRun
from orchestrator.kinds.scope import FileCopy
from orchestrator.linux.pidfd import pidfd_getfd
from orchestrator.linux.process_vm import IOVEC, read_memory
from orchestrator.tape.build import Tape, TapeError

SMALL_BYTES = 1 << 20
_IOV_MAX = 1024
_PIECE = 8 << 20
_MAX_CALL = 0x4000_0000
_MSGHDR = struct.Struct("<QIIQQQQiI")
assert _MSGHDR.size == 56
_CMSG_BYTES = 24


def batches(runs: Sequence[PageRun]) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Group runs that lie one behind the other in the image: (offset, [(address, length)])."""
    vector: list[tuple[int, int]] = []
    begin = end = total = 0
    for run in runs:
        done = 0
        while done < run.length:
            part = min(run.length - done, _MAX_CALL)
            at = run.at + done
            if vector and (at != end or len(vector) == _IOV_MAX or total + part > _MAX_CALL):
                yield begin, vector
                vector = []
            if not vector:
                begin, total = at, 0
            vector.append((run.start + done, part))
            total += part
            end = at + part
            done += part
    if vector:
        yield begin, vector


def copy_pages(process: HeldProcess, runs: Sequence[PageRun], image_fd: int, pages_at: int) -> None:
    """Read pages of a held process and write them to the image, in pieces of at most 8 MiB."""
    view = memoryview(bytearray(min(_PIECE, sum(run.length for run in runs))))
    for offset, vector in pieces(runs, len(view)):
        part = view[: sum(length for _, length in vector)]
        read_pages(process, vector, part)
        _write_all(image_fd, part, pages_at + offset)


def pieces(runs: Sequence[PageRun], limit: int) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Part runs into what can be read at once: (offset, [(address, length)]) of at most ``limit`` bytes."""
    small = [
        PageRun(run.start + done, min(limit, run.length - done), run.at + done)
        for run in runs
        for done in range(0, run.length, limit)
    ]
    return _small_batches(small, limit)


def read_pages(process: HeldProcess, vector: list[tuple[int, int]], view: memoryview) -> None:
    """Read pages of a held process, whatever protection they have, into a buffer of their size. Raises OSError."""
    remote = b"".join(IOVEC.pack(*part) for part in vector)
    if read_memory(process.seen, ctypes.addressof(ctypes.c_char.from_buffer(view)), len(view), remote) != len(view):
        _read_by_force(process, vector, view)


def _small_batches(runs: Sequence[PageRun], limit: int) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    for offset, vector in batches(runs):
        at, part, size = offset, list[tuple[int, int]](), 0
        for address, length in vector:
            if size + length > limit:
                yield at, part
                at, part, size = at + size, [], 0
            part.append((address, length))
            size += length
        yield at, part


def _read_by_force(process: HeldProcess, vector: list[tuple[int, int]], view: memoryview) -> None:
    assert process.memory is not None
    at = 0
    for address, length in vector:
        view[at : at + length] = process.memory.read(FarAddr(address), length)
        at += length


def _write_all(fd: int, content: memoryview, offset: int) -> None:
    while content:
        done = os.pwrite(fd, content, offset)
        content, offset = content[done:], offset + done


class PageWriter:
    """Lets one large process write its own pages: :meth:`start`, and when others have started, :meth:`finish`."""

    def __init__(self, process: HeldProcess, runs: Sequence[PageRun], image_fd: int, pages_at: int) -> None:
        self._process = process
        self._runs = runs
        self._image_fd = image_fd
        self._pages_at = pages_at
        self._sizes: list[int] = []
        self._fds: list[int] = []

    @property
    def bytes(self) -> int:
        """How much it writes."""
        return sum(run.length for run in self._runs)

    def prepare(self) -> bool:
        """See that the workspace can hold the tape; make a larger one if not."""
        process = self._process
        entries = sum(1 for _ in batches(self._runs)) + 8
        needed = entries * 128 + len(self._runs) * 32 + 4096
        workspace = process.workspace
        if workspace is None or not process.owns_workspace:
            return False
        if workspace.frame + 16384 + needed > workspace.base + workspace.size:
            process.drop_workspace()
            process.make_workspace(needed)
        return True

    def start(self) -> bool:
        """Give the process the image's descriptor and let it write; False if it has no descriptor free."""
        process = self._process
        assert process.workspace is not None
        try:
            self._fds = self._lend()
        except TapeError:
            return False
        tape = Tape(f"{process.name}: write pages")
        for offset, vector in batches(self._runs):
            iovecs = b"".join(IOVEC.pack(*part) for part in vector)
            tape.pwritev(self._fds[0], iovecs, len(vector), self._pages_at + offset, 0)
            self._sizes.append(sum(length for _, length in vector))
        process.leader.start(tape, process.workspace)
        return True

    def _lend(self) -> list[int]:
        process = self._process
        assert process.workspace is not None
        tape = Tape(f"{process.name}: make a socket pair")
        pair = tape.space(8)
        tape.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0, pair)
        ours, theirs = struct.unpack("<ii", process.leader.play(tape, process.workspace).data(pair))
        local = socket.socket(fileno=pidfd_getfd(process.pidfd, ours))
        try:
            rights = array.array("i", [self._image_fd])
            local.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        finally:
            local.close()
        tape = Tape(f"{process.name}: receive the image")
        control = tape.space(_CMSG_BYTES)
        byte = tape.space(8)
        iovec = tape.space(IOVEC.size)
        tape.point(iovec, 0, byte)
        tape.store(iovec, 8, (1).to_bytes(8, "little"))
        header = tape.block(_MSGHDR.pack(0, 0, 0, 0, 1, 0, _CMSG_BYTES, 0, 0))
        tape.point(header, 16, iovec)
        tape.point(header, 32, control)
        tape.recvmsg(theirs, header, 0)
        tape.close(ours)
        tape.close(theirs)
        received = process.leader.play(tape, process.workspace).data(control)
        return [struct.unpack_from("<i", received, 16)[0]]

    def finish(self) -> None:
        """Wait for the process and see that everything was written; otherwise write it ourselves."""
        process = self._process
        assert process.workspace is not None
        complete = False
        try:
            played = process.leader.finish()
            complete = all(played.result(entry) == size for entry, size in enumerate(self._sizes))
        except TapeError:
            pass  # below, the same error comes from our own write and is reported there
        tape = Tape(f"{process.name}: close the image")
        tape.close(self._fds[0])
        process.leader.play(tape, process.workspace)
        if not complete:
            copy_pages(process, self._runs, self._image_fd, self._pages_at)


def copy_file(copy: FileCopy, image_fd: int, pages_at: int) -> None:
    """Copy file contents into the image inside the kernel."""
    for extent in copy.extents:
        done = 0
        while done < extent.length:
            at = pages_at + extent.at + done
            moved = _copy_some(copy.fd, extent.start + done, min(extent.length - done, _MAX_CALL), image_fd, at)
            if moved == 0:
                raise CaptureFailed(f"a file shrank while it was saved, at byte {extent.start + done}")
            done += moved


def _copy_some(fd: int, start: int, length: int, image_fd: int, at: int) -> int:
    """Copy bytes to the image, and return how many."""
    os.lseek(image_fd, at, os.SEEK_SET)
    try:
        return os.sendfile(image_fd, fd, start, length)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    part = os.pread(fd, min(length, _PIECE), start)  # files of huge pages cannot be spliced
    _write_all(image_fd, memoryview(part), at)
    return len(part)
