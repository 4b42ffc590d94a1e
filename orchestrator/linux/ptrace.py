"""ptrace(2) and the wait calls that belong to it.

Every request must come from the OS thread that attached. A tracee is named by its thread id in our
own PID namespace. Only PTRACE_SEIZE is offered: PTRACE_ATTACH sends a SIGSTOP that a job can see.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
from typing import NamedTuple

_libc = ctypes.CDLL(None, use_errno=True)
_ptrace = _libc.ptrace
_ptrace.restype = ctypes.c_long
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_get_errno = ctypes.get_errno

PTRACE_PEEKUSER = 3
PTRACE_POKEUSER = 6
PTRACE_CONT = 7
PTRACE_KILL = 8
PTRACE_SINGLESTEP = 9
PTRACE_DETACH = 17
PTRACE_SYSCALL = 24
PTRACE_SETOPTIONS = 0x4200
PTRACE_GETEVENTMSG = 0x4201
PTRACE_GETSIGINFO = 0x4202
PTRACE_SETSIGINFO = 0x4203
PTRACE_GETREGSET = 0x4204
PTRACE_SETREGSET = 0x4205
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
PTRACE_LISTEN = 0x4208
PTRACE_PEEKSIGINFO = 0x4209
PTRACE_GETSIGMASK = 0x420A
PTRACE_SETSIGMASK = 0x420B
PTRACE_SECCOMP_GET_FILTER = 0x420C
PTRACE_SECCOMP_GET_METADATA = 0x420D
PTRACE_GET_RSEQ_CONFIGURATION = 0x420F
PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG = 0x4210
PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG = 0x4211

PTRACE_PEEKSIGINFO_SHARED = 1

PTRACE_O_TRACESYSGOOD = 0x1
PTRACE_O_TRACEFORK = 0x2
PTRACE_O_TRACEVFORK = 0x4
PTRACE_O_TRACECLONE = 0x8
PTRACE_O_TRACEEXIT = 0x40
PTRACE_O_EXITKILL = 0x100000
PTRACE_O_SUSPEND_SECCOMP = 0x200000

PTRACE_EVENT_FORK = 1
PTRACE_EVENT_VFORK = 2
PTRACE_EVENT_CLONE = 3
PTRACE_EVENT_EXIT = 6
PTRACE_EVENT_STOP = 128

NT_PRSTATUS = 1
NT_X86_XSTATE = 0x202
NT_386_IOPERM = 0x201

WALL = 0x40000000
SIGINFO_SIZE = 128
SIGTRAP_SYSCALL = signal.SIGTRAP | 0x80


_DISPATCH = struct.Struct("<QQQQ")
_DEBUG_REGISTERS = 848  # offsetof(struct user, u_debugreg)


class _Iovec(ctypes.Structure):
    _fields_ = (("iov_base", ctypes.c_void_p), ("iov_len", ctypes.c_size_t))


_buffer = ctypes.create_string_buffer(64 * 1024)
_buffer_address = ctypes.addressof(_buffer)
_iovec = _Iovec(_buffer_address, 0)
_iovec_address = ctypes.addressof(_iovec)


def _request(request: int, tid: int, address: int, data: int) -> int:
    result = _ptrace(request, tid, address, data)
    if result == -1:
        errno = _get_errno()
        error = OSError(errno, os.strerror(errno))
        error.add_note(f"ptrace request {request:#x} on task {tid}")
        raise error
    return int(result)


def seize(tid: int, options: int = 0) -> None:
    """Attach without stopping the task."""
    _request(PTRACE_SEIZE, tid, 0, options)


def interrupt(tid: int) -> None:
    """Ask a seized task to stop; the stop arrives as PTRACE_EVENT_STOP."""
    _request(PTRACE_INTERRUPT, tid, 0, 0)


def set_options(tid: int, options: int) -> None:
    """Replace the options given to seize."""
    _request(PTRACE_SETOPTIONS, tid, 0, options)


def cont(tid: int, sig: int = 0) -> None:
    """Let a stopped task run on, delivering ``sig`` if not zero."""
    if _ptrace(PTRACE_CONT, tid, 0, sig) == -1:
        _request(PTRACE_CONT, tid, 0, sig)


def syscall_step(tid: int, sig: int = 0) -> None:
    """Let a stopped task run to its next system call entry or exit."""
    _request(PTRACE_SYSCALL, tid, 0, sig)


def single_step(tid: int) -> None:
    """Let a stopped task execute one instruction. If the tracer dies meanwhile, the trap kills the task."""
    _request(PTRACE_SINGLESTEP, tid, 0, 0)


def detach(tid: int, sig: int = 0) -> None:
    """Let go of a stopped task, delivering ``sig`` if not zero."""
    _request(PTRACE_DETACH, tid, 0, sig)


def event_message(tid: int) -> int:
    """Return the message of the last event stop: a new task's id, an exit status."""
    message = ctypes.c_ulong()
    _request(PTRACE_GETEVENTMSG, tid, 0, ctypes.addressof(message))
    return message.value


def get_regset(tid: int, kind: int) -> bytes:
    """Read one register set."""
    _iovec.iov_len = len(_buffer)
    _request(PTRACE_GETREGSET, tid, kind, _iovec_address)
    return ctypes.string_at(_buffer_address, _iovec.iov_len)


def has_regset(tid: int, kind: int) -> bool:
    """Whether a task has a register set that not all have."""
    _iovec.iov_len = len(_buffer)
    return int(_ptrace(PTRACE_GETREGSET, tid, kind, _iovec_address)) != -1 and int(_iovec.iov_len) > 0


def set_regset(tid: int, kind: int, raw: bytes) -> None:
    """Write one register set."""
    ctypes.memmove(_buffer_address, raw, len(raw))
    _iovec.iov_len = len(raw)
    _request(PTRACE_SETREGSET, tid, kind, _iovec_address)


def get_sigmask(tid: int) -> int:
    """Return the blocked signals, bit N-1 for signal N."""
    _request(PTRACE_GETSIGMASK, tid, 8, _buffer_address)
    return int.from_bytes(ctypes.string_at(_buffer_address, 8), "little")


def set_sigmask(tid: int, mask: int) -> None:
    """Set the blocked signals, bit N-1 for signal N."""
    ctypes.memmove(_buffer_address, mask.to_bytes(8, "little"), 8)
    _request(PTRACE_SETSIGMASK, tid, 8, _buffer_address)


def get_siginfo(tid: int) -> bytes:
    """Return the siginfo of the signal that the task is stopped at (128 bytes)."""
    _request(PTRACE_GETSIGINFO, tid, 0, _buffer_address)
    return ctypes.string_at(_buffer_address, SIGINFO_SIZE)


def set_siginfo(tid: int, raw: bytes) -> None:
    """Replace the siginfo of the signal that the task is stopped at."""
    ctypes.memmove(_buffer_address, raw, SIGINFO_SIZE)
    _request(PTRACE_SETSIGINFO, tid, 0, _buffer_address)


def peek_signals(tid: int, *, shared: bool) -> list[bytes]:
    """Return the queued signals of a thread, or of its process, oldest first (128 bytes each)."""
    batch = 32
    queue: list[bytes] = []
    while True:
        arguments = struct.pack("<QIi", len(queue), PTRACE_PEEKSIGINFO_SHARED if shared else 0, batch)
        count = _request(
            PTRACE_PEEKSIGINFO, tid, ctypes.addressof(ctypes.create_string_buffer(arguments, 16)), _buffer_address
        )
        queue += [ctypes.string_at(_buffer_address + i * SIGINFO_SIZE, SIGINFO_SIZE) for i in range(count)]
        if count < batch:
            return queue


class RseqConfiguration(NamedTuple):
    """What a thread registered with rseq(2); address 0 when nothing."""

    address: int
    size: int
    signature: int
    flags: int


def rseq_configuration(tid: int) -> RseqConfiguration:
    """Return a thread's restartable-sequences registration (since Linux 5.13)."""
    _request(PTRACE_GET_RSEQ_CONFIGURATION, tid, 24, _buffer_address)
    address, size, signature, flags = struct.unpack_from("<QIII", _buffer, 0)
    return RseqConfiguration(address, size, signature, flags)


class DispatchConfiguration(NamedTuple):
    """Where system calls of a thread become signals; mode 0 is nowhere. A struct ptrace_sud_config."""

    mode: int
    selector: int
    start: int
    length: int


def dispatch_configuration(tid: int) -> DispatchConfiguration:
    """Return a thread's syscall user dispatch (since Linux 6.4)."""
    try:
        _request(PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, tid, _DISPATCH.size, _buffer_address)
    except OSError as error:
        if error.errno == errno.EIO:  # a kernel without it
            return DispatchConfiguration(0, 0, 0, 0)
        raise
    return DispatchConfiguration(*_DISPATCH.unpack_from(_buffer, 0))


def set_dispatch(tid: int, wanted: DispatchConfiguration) -> None:
    """Set a thread's syscall user dispatch."""
    ctypes.memmove(_buffer_address, _DISPATCH.pack(*wanted), _DISPATCH.size)
    _request(PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG, tid, _DISPATCH.size, _buffer_address)


def debug_register(tid: int, number: int) -> int:
    """Return one of a thread's debug registers, as ptrace(2) has set them."""
    ctypes.set_errno(0)
    value = _ptrace(PTRACE_PEEKUSER, tid, _DEBUG_REGISTERS + 8 * number, 0)
    if value == -1 and _get_errno():
        _request(PTRACE_PEEKUSER, tid, _DEBUG_REGISTERS + 8 * number, 0)
    return int(value) & 0xFFFF_FFFF_FFFF_FFFF


def set_debug_register(tid: int, number: int, value: int) -> None:
    """Set one of a thread's debug registers; they stay when the tracer lets go."""
    _request(PTRACE_POKEUSER, tid, _DEBUG_REGISTERS + 8 * number, value)


def seccomp_filter(tid: int, index: int) -> bytes:
    """Return the program of a seccomp filter, 8 bytes an instruction; ENOENT if there are not so many.

    ``index`` 0 is the oldest, though ptrace(2) says otherwise.
    """
    count = _request(PTRACE_SECCOMP_GET_FILTER, tid, index, _buffer_address)
    return ctypes.string_at(_buffer_address, count * 8)


def seccomp_flags(tid: int, index: int) -> int:
    """Return the SECCOMP_FILTER_FLAG_* that a filter keeps (since Linux 4.16)."""
    ctypes.memmove(_buffer_address, struct.pack("<QQ", index, 0), 16)
    _request(PTRACE_SECCOMP_GET_METADATA, tid, 16, _buffer_address)
    return int(struct.unpack_from("<QQ", _buffer, 0)[1])


class Stop(NamedTuple):
    """What wait reported about a task."""

    tid: int
    status: int

    @property
    def signal(self) -> int:
        """The signal of a stop."""
        return self.status >> 8 & 0xFF

    @property
    def event(self) -> int:
        """The PTRACE_EVENT_* of a stop, 0 for a signal or system-call stop."""
        return self.status >> 16

    @property
    def is_stop(self) -> bool:
        """Whether the task stopped, rather than ended."""
        return self.status & 0xFF == 0x7F


def wait_for(tid: int) -> Stop:
    """Wait for one task's next stop or end, blocking."""
    pid, status = os.waitpid(tid, WALL)
    return Stop(pid, status)


def poll_for(tid: int) -> Stop | None:
    """Return one task's stop or end if there is one already."""
    pid, status = os.waitpid(tid, WALL | os.WNOHANG)
    return Stop(pid, status) if pid else None
