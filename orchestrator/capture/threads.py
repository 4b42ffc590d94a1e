"""What threads of a process may have each for itself: seccomp filters, descriptors, directories."""

from __future__ import annotations

from typing import NamedTuple

from orchestrator.capture.hold import HeldProcess
from orchestrator.ids import FarAddr
from orchestrator.kinds.task import registers
from orchestrator.kinds.task.seccomp import Seccomp, SeccompCollector
from orchestrator.linux import ptrace
from orchestrator.linux.kcmp import KCMP_FILES, KCMP_FS, kcmp
from orchestrator.linux.proc_status import Status
from orchestrator.tape.memory import ProcMemory
from orchestrator.tape.tracee import Tracee

_ALL_SIGNALS = (1 << 64) - 1
_RSEQ_CS_OFFSET = 8
_RSEQ_CS_SIZE = 32


class ThreadView(NamedTuple):
    """A thread, as it is seen from outside."""

    thread: Tracee
    status: Status
    seccomp: Seccomp | None
    own_files: bool
    """Whether its descriptor table is not that of the process."""
    own_filesystem: bool
    """Whether its directories and umask are not those of the process."""


def read_threads(process: HeldProcess, filters: SeccompCollector) -> list[ThreadView]:
    """Return every thread, the leader first."""
    found = []
    for thread in process.threads:
        status = process.statuses[thread.tid]
        chain = filters.capture(process.host, thread.tid, status.seccomp)
        own = [
            thread is not process.leader and kcmp(process.seen, thread.tid, kind) != 0 for kind in (KCMP_FILES, KCMP_FS)
        ]
        found.append(ThreadView(thread, status, chain, *own))
    return found


def leave_rseq_section(memory: ProcMemory, thread: Tracee) -> ptrace.RseqConfiguration:
    """Move a thread in a restartable sequence to its abort handler: the kernel forgets it if anything else is run."""
    rseq = ptrace.rseq_configuration(thread.tid)
    if rseq.address:
        area = memory.read(FarAddr(rseq.address), rseq.size)
        section = int.from_bytes(area[_RSEQ_CS_OFFSET : _RSEQ_CS_OFFSET + 8], "little")
        if section:
            registers.leave_rseq_section(thread.registers, memory.read(FarAddr(section), _RSEQ_CS_SIZE))
    return rseq


def settle_interrupted_call(thread: Tracee, status: Status) -> None:
    """Have a call that was interrupted made again, or fail, as the signals demand that wait for the thread."""
    pending = (status.sig_pnd | status.shd_pnd) & ~status.sig_blk & _ALL_SIGNALS
    registers.settle_interrupted_call(thread.registers, pending)
