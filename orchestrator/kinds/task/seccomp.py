"""Filters of system calls, and strict mode. See seccomp(2).

A thread's filters form a chain. Threads made after a filter was installed have it in common with their maker, and
SECCOMP_FILTER_FLAG_TSYNC later asks just that: whether one chain continues the other. The kernel does not tell
which chains are one, so chains of equal programs are taken for it.
"""

from __future__ import annotations

import errno
import struct

from orchestrator.ids import HostPid, ObjectId
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.linux import ptrace
from orchestrator.tape.build import Tape

SECCOMP_MODE_STRICT = 1
SECCOMP_MODE_FILTER = 2
_PR_SET_SECCOMP = 22
_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_FILTER_FLAG_LOG = 2
_INSTRUCTION = struct.Struct("<HBBI")  # struct sock_filter
_SOCK_FPROG = struct.Struct("<H6xQ")
_BPF_RET_K = 0x06
_RET_ACTION_FULL = 0xFFFF0000
_RET_USER_NOTIF = 0x7FC00000


class SeccompFilter(Record, frozen=True):
    """One program, stored once for all chains that have it."""

    program: bytes
    """Instructions of classic BPF, 8 bytes each."""
    log: bool
    """Whether SECCOMP_FILTER_FLAG_LOG was given."""


class Seccomp(Record, frozen=True):
    """What a thread may call: strict mode, or a chain of filters."""

    strict: bool
    filters: tuple[ObjectId, ...]
    """The oldest first; indices into the image's filters."""


class SeccompCollector:
    """The filters of one capture, each once."""

    def __init__(self, scope: Scope) -> None:
        self.filters: list[SeccompFilter] = []
        self._scope = scope
        self._known: dict[SeccompFilter, ObjectId] = {}

    def capture(self, pid: HostPid, tid: int, mode: int) -> Seccomp | None:
        """Read the chain of a held thread; None if it has none, or after noting a blocker in the scope."""
        if mode == 0:
            return None
        if mode == SECCOMP_MODE_STRICT:
            return Seccomp(strict=True, filters=())
        chain: list[ObjectId] = []
        while True:
            try:
                program = ptrace.seccomp_filter(tid, len(chain))
                flags = ptrace.seccomp_flags(tid, len(chain))
            except OSError as error:
                if error.errno == errno.ENOENT:
                    break
                raise
            if asks_supervisor(program):
                self._scope.unsupported(
                    pid, _called(pid, tid), "it asks a supervisor (SECCOMP_RET_USER_NOTIF), which cannot be rebuilt"
                )
                return None
            if flags & ~_SECCOMP_FILTER_FLAG_LOG:
                self._scope.unsupported(pid, _called(pid, tid), f"its flags {flags:#x} are not known")
                return None
            one = SeccompFilter(program, bool(flags & _SECCOMP_FILTER_FLAG_LOG))
            id_ = self._known.setdefault(one, ObjectId(len(self.filters)))
            if id_ == len(self.filters):
                self.filters.append(one)
            chain.append(id_)
        return Seccomp(strict=False, filters=tuple(chain))


def _called(pid: HostPid, tid: int) -> str:
    return f"seccomp filter of thread {tid}" if tid != pid else "seccomp filter"


def asks_supervisor(program: bytes) -> bool:
    """Whether a program may hand a system call to whoever holds its listener."""
    return any(
        code == _BPF_RET_K and value & _RET_ACTION_FULL == _RET_USER_NOTIF
        for code, _, _, value in _INSTRUCTION.iter_unpack(program)
    )


def tell_filter(tape: Tape, wanted: SeccompFilter) -> None:
    """Put one more filter before the calling thread.

    From here on a tracer must suspend them. As long as the thread may do everything (CAP_SYS_ADMIN),
    no_new_privs is not needed, so this comes before its credentials.
    """
    program = tape.block(wanted.program)
    fprog = tape.block(_SOCK_FPROG.pack(len(wanted.program) // _INSTRUCTION.size, 0))
    tape.point(fprog, 8, program)
    tape.seccomp(_SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_LOG if wanted.log else 0, fprog)


def tell_strict(tape: Tape) -> None:
    """Enter strict mode; the tracer must suspend it."""
    tape.prctl(_PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0)
