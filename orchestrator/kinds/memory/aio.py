"""Contexts of asynchronous I/O: a ring that the kernel maps and fills. See io_setup(2).

A context is named by the address of its ring, and made anew there. Completions that were not taken yet are in the
ring, which is memory. How far the kernel has filled it is told by the ring and known to the kernel itself: a restore
lets as many requests that do nothing come and go as bring it to the same place. What is on its way when orch looks
would never come back after a restore: ``aio_probe.py`` finds it out.
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

import msgspec

from orchestrator.ids import FarAddr, HostPid
from orchestrator.kinds.memory.record import PageRun, Vma
from orchestrator.kinds.scope import Scope
from orchestrator.linux.cpus import possible_cpus
from orchestrator.linux.proc_maps import MapLine, read_maps
from orchestrator.linux.procfs import read_file
from orchestrator.tape.build import Block, Tape
from orchestrator.tape.memory import Memory

AIO = "aio"
"""How --external allows that requests on their way are lost."""
_PATH = b"/[aio]"
_MAGIC = 0xA10A10A1
_ring = struct.Struct("=IIIIIIII")  # struct aio_ring: id, nr, head, tail, magic, features, features, length
_iocb = struct.Struct("=QIiHhIQQqQII")
assert _iocb.size == 64
EVENT_BYTES = 32
HEAD_AT = 8
_KEPT_HEADER = 8
"""The kernel's own number of the context, and the size of the ring, are those of the new one."""
_SPARE_EVENTS = 2
_MREMAP_MAYMOVE_FIXED = 3
_PROT_READ_WRITE = 3
_MASK_BYTES = 128
_BYTES_A_PROCESSOR = 512
AT_ONCE = 64


class Ring(NamedTuple):
    """What the head of a ring says."""

    nr: int
    head: int
    tail: int

    @property
    def waiting(self) -> int:
        """How many completions nobody has taken yet."""
        return (self.tail - self.head) % self.nr

    @property
    def batch(self) -> int:
        """In what portions processors take places for requests from the context."""
        return max(1, (self.nr - 1) // (possible_cpus() * 4))

    @property
    def places(self) -> int:
        """How many requests can be on their way or wait as completions. What is less than a portion is never taken."""
        return self.nr - 1 - (self.nr - 1) % self.batch


def is_ring(line: MapLine) -> bool:
    """Whether a mapping is the ring of a context."""
    return line.path == _PATH and line.shared


def any_contexts() -> bool:
    """Whether there is a context anywhere on the machine."""
    return read_file("/proc/sys/fs/aio-nr").strip() != b"0"


def probe_bytes(pid: HostPid) -> int:
    """Return how many bytes more the tapes of a process may have, as they look into its contexts."""
    sizes = [line.end - line.start for line in read_maps(pid) if is_ring(line)]
    return 3 * max(sizes) + _BYTES_A_PROCESSOR * possible_cpus() if sizes else 0


def ring_name(start: int, end: int) -> str:
    """Return how messages call a context."""
    return f"memory {start:#x}-{end:#x} (context of io_setup)"


def note_ring(scope: Scope, pid: HostPid, line: MapLine) -> None:
    """Note in the scope why a context cannot be rebuilt, if so."""
    what = ring_name(line.start, line.end)
    if scope.rings.setdefault(line.inode, pid) != pid:
        scope.unsupported(pid, what, "it was inherited over fork, and belongs to another process")
        return
    fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _, nr, _, _, magic, _, _, length = _ring.unpack(os.pread(fd, _ring.size, line.start))
    finally:
        os.close(fd)
    if magic != _MAGIC or length != _ring.size or nr != (line.end - line.start - length) // EVENT_BYTES:
        scope.unsupported(pid, what, "its ring is not one that orch knows")


def read_ring(memory: Memory, vma: Vma) -> Ring:
    """Return where a ring begins and ends."""
    _, nr, head, tail, _, _, _, _ = _ring.unpack(memory.read(FarAddr(vma.start), _ring.size))
    return Ring(nr, head % nr, tail % nr)


def event_at(vma: Vma, place: int) -> FarAddr:
    """Return the address of a completion."""
    return FarAddr(vma.start + _ring.size + place * EVENT_BYTES)


def save_ring(scope: Scope, memory: Memory, vma: Vma) -> Vma:
    """Put what is in a ring now into the image."""
    ring = read_ring(memory, vma)
    fd = os.memfd_create("ring", os.MFD_CLOEXEC)
    scope.closers.append(fd)
    os.pwrite(fd, memory.read(FarAddr(vma.start), vma.end - vma.start), 0)
    content = scope.store(fd, vma.end - vma.start)
    runs = tuple(PageRun(vma.start + extent.start, extent.length, extent.at) for extent in content.extents)
    return msgspec.structs.replace(vma, runs=runs, ring=(ring.head, ring.tail))


def do_nothing(tape: Tape, fd: int, cookie: int = 0) -> Block:
    """Return pointers to AT_ONCE requests that read nothing from ``fd``, which is done at once."""
    request = tape.block(_iocb.pack(cookie, 0, 0, 0, 0, fd, 0, 0, 0, 0, 0, 0))
    pointers = tape.space(8 * AT_ONCE)
    for number in range(AT_ONCE):
        tape.point(pointers, 8 * number, request)
    return pointers


def rebuild_ring(tape: Tape, vma: Vma, image: int, pages_at: int) -> None:
    """Make a context whose ring has the size of the mapping, move it there, and bring it to where it was."""
    size = vma.end - vma.start
    # io_setup makes room for twice as many, and some.
    requests = (size // EVENT_BYTES - 1 - _SPARE_EVENTS) // 2
    tape.io_setup(requests, tape.argument_behind(1, 0))
    tape.mremap(0, size, size, _MREMAP_MAYMOVE_FIXED, vma.start)
    head, tail = vma.ring
    if head or tail:
        ring = Ring((size - _ring.size) // EVENT_BYTES, head, tail)
        _fill(tape, vma.start, ring, image)
        for run in vma.runs:
            skipped = _KEPT_HEADER if run.start == vma.start else 0
            offset = pages_at + run.at + skipped
            tape.pread64(image, run.start + skipped, run.length - skipped, offset)
    if vma.prot != _PROT_READ_WRITE:
        tape.mprotect(vma.start, size, vma.prot)


def _fill(tape: Tape, context: int, ring: Ring, image: int) -> None:
    """Let the kernel fill the ring from ``head`` to ``tail``."""
    # Each processor keeps places for itself. On a single one, all that were free are found.
    mask = tape.space(_MASK_BYTES)
    tape.sched_getaffinity(0, _MASK_BYTES, mask)
    processor = 1 << min(os.sched_getaffinity(0))
    tape.sched_setaffinity(0, _MASK_BYTES, processor.to_bytes(_MASK_BYTES, "little"), may_fail=True)
    pointers = do_nothing(tape, image)
    taken = tape.space(EVENT_BYTES * AT_ONCE)
    for count in portions(ring.head, min(AT_ONCE, max(1, (ring.nr - 1) // 4))):
        tape.io_submit(context, count, pointers)
        tape.io_getevents(context, count, count, taken, 0)
    for count in portions(ring.waiting, AT_ONCE):
        tape.io_submit(context, count, pointers)
    tape.sched_setaffinity(0, _MASK_BYTES, mask)


def portions(count: int, most: int) -> list[int]:
    """Divide a number."""
    return [min(most, count - done) for done in range(0, count, most)]
