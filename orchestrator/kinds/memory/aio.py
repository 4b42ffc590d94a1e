"""Contexts of asynchronous I/O: a ring that the kernel maps and fills. See io_setup(2).

A context is named by the address of its ring. An idle one is made anew and its ring moved there. The kernel shows
nobody whether a request is on its way; what has not come back when orch looks would never come back after a restore.
"""

from __future__ import annotations

import os
import struct

from orchestrator.ids import HostPid
from orchestrator.kinds.memory.record import Vma
from orchestrator.kinds.scope import Scope
from orchestrator.linux.proc_maps import MapLine
from orchestrator.tape.build import Tape

AIO = "aio"
"""How --external allows that requests on their way are lost."""
_PATH = b"/[aio]"
_MAGIC = 0xA10A10A1
_ring = struct.Struct("=IIIIIIII")  # struct aio_ring: id, nr, head, tail, magic, features, features, length
_EVENT_BYTES = 32
_SPARE_EVENTS = 2
_MREMAP_MAYMOVE_FIXED = 3
_PROT_READ_WRITE = 3


def is_ring(line: MapLine) -> bool:
    """Whether a mapping is the ring of a context."""
    return line.path == _PATH and line.shared


def note_ring(scope: Scope, pid: HostPid, line: MapLine) -> None:
    """Note in the scope why a context cannot be rebuilt, if so."""
    what = f"memory {line.start:#x}-{line.end:#x} (context of io_setup)"
    if scope.rings.setdefault(line.inode, pid) != pid:
        scope.unsupported(pid, what, "it was inherited over fork, and belongs to another process")
        return
    fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _, _, head, tail, magic, _, _, _ = _ring.unpack(os.pread(fd, _ring.size, line.start))
    finally:
        os.close(fd)
    if magic != _MAGIC:
        scope.unsupported(pid, what, "its ring is not one that orch knows")
    elif head != tail:
        scope.unsupported(pid, what, "completions that were not taken yet wait in it", "try again")
    elif AIO not in scope.externals:
        scope.unsupported(
            pid,
            what,
            "requests may be on their way, which the kernel does not show",
            f"--external {AIO} takes it that there are none",
        )


def rebuild_ring(tape: Tape, vma: Vma) -> None:
    """Make a context whose ring has the size of the mapping, and move it there."""
    size = vma.end - vma.start
    # io_setup makes room for twice as many, and some.
    requests = (size // _EVENT_BYTES - 1 - _SPARE_EVENTS) // 2
    tape.io_setup(requests, tape.argument_behind(1, 0))
    tape.mremap(0, size, size, _MREMAP_MAYMOVE_FIXED, vma.start)
    if vma.prot != _PROT_READ_WRITE:
        tape.mprotect(vma.start, size, vma.prot)
