"""The records of an address space and its mappings (VMAs)."""

from __future__ import annotations

from typing import NamedTuple

from orchestrator.ids import ObjectId
from orchestrator.kinds.record import Record
from orchestrator.kinds.task.numa import MemoryPolicy


class PageRun(NamedTuple):
    """Pages of a private mapping whose contents lie in the image.

    Two address spaces whose runs lie at the same place of the image shared these pages by
    copy-on-write, and will again.
    """

    start: int
    """Address, in bytes."""
    length: int
    """In bytes."""
    at: int
    """Offset from the start of the page data, in bytes."""

    @property
    def end(self) -> int:
        """The address behind the run."""
        return self.start + self.length


class Vma(Record, frozen=True, array_like=True):
    """One mapping. See proc_pid_maps(5)."""

    start: int
    end: int
    prot: int
    shared: bool
    backing: str
    """"anonymous", "file", "io_uring" (a file, too), "object" (shared memory), "sysv", "aio", or the name of a special
    mapping: "vdso"..."""
    offset: int = 0
    """In the file or object, in bytes."""
    of: ObjectId = ObjectId(-1)
    """The open file, or the shared object, that is mapped."""
    flags: tuple[str, ...] = ()
    """Those VmFlags of smaps that must be made again: "gd" grows down, "lo" locked, "dp" droppable..."""
    runs: tuple[PageRun, ...] = ()
    guards: tuple[tuple[int, int], ...] = ()
    """Address ranges of MADV_GUARD_INSTALL (Linux 6.13)."""
    huge_bits: int = 0
    """The page size of memory from hugetlbfs that is not of a file, as a power of two; else 0."""
    ring: tuple[int, int] = (0, 0)
    """Of a context of asynchronous I/O: which completion is the first, and which place is the next to be filled."""
    name: str = ""
    """That of PR_SET_VMA_ANON_NAME."""
    policy: MemoryPolicy | None = None
    """That of mbind(2), if it has one of its own and the machine has several NUMA nodes."""


class AddressSpace(Record, frozen=True):
    """The memory of a process; processes that share it (CLONE_VM) refer to one record."""

    id: ObjectId
    vmas: list[Vma]
    start_code: int
    end_code: int
    start_data: int
    end_data: int
    start_brk: int
    brk: int
    start_stack: int
    arg_start: int
    arg_end: int
    env_start: int
    env_end: int
    auxv: bytes
    executable: ObjectId
    """The open file behind /proc/PID/exe."""
    dumpable: int
    """See PR_SET_DUMPABLE in prctl(2)."""
    thp_disable: bool = False
    coredump_filter: int = 0x33
    """Which mappings a core dump holds. See core(5)."""
    lock_future: int = 0
    """The flags of mlockall(2) for mappings to come: MCL_FUTURE and MCL_ONFAULT."""
    barriers: int = 0
    """The commands of membarrier(2) that it has registered for, as MEMBARRIER_CMD_GET_REGISTRATIONS tells them."""
