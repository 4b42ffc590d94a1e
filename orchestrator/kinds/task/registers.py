"""Registers of a stopped thread, made ready for an image and for going on."""

from __future__ import annotations

from orchestrator.linux.arch import x86_64 as arch
from orchestrator.linux.syscalls import SYSCALLS

# Calls that give up with EINTR whenever a task stops, even when no signal is delivered: made again,
# they wait on as if nothing had been. See signal(7), "Interruption of system calls by stop signals".
_EINTR_ON_STOP = frozenset(
    number
    for name in (
        "epoll_wait", "epoll_pwait", "epoll_pwait2", "semop", "semtimedop", "rt_sigtimedwait", "io_getevents",
        "io_uring_enter", "pause", "futex",
        # those on sockets with a time-out (SO_RCVTIMEO, SO_SNDTIMEO)
        "read", "readv", "recvfrom", "recvmsg", "recvmmsg", "accept", "accept4",
        "write", "writev", "sendto", "sendmsg", "sendmmsg", "connect",
    )
    if (number := SYSCALLS[name].x86_64) is not None
)  # fmt: skip
_RESTART_SYSCALL = SYSCALLS["restart_syscall"].x86_64 or 0


def settle_interrupted_call(registers: list[int], deliverable: int) -> None:
    """Undo an EINTR that is our doing: the call is made again. ``deliverable``: pending signals not blocked."""
    call = arch.interrupted_call(registers)
    if call is None or deliverable:
        return
    number, error = call
    if error == arch.EINTR and number in _EINTR_ON_STOP:
        arch.rewind_call(registers)


def for_image(registers: list[int]) -> bytes:
    """Return the registers as a restore sets them.

    A call that the kernel would continue by its restart block is made again instead: the block does
    not travel. Whether it returns EINTR because a handler runs first stays the kernel's decision.
    """
    registers = registers.copy()
    call = arch.interrupted_call(registers)
    if call is not None and call[1] == arch.ERESTART_RESTARTBLOCK:
        registers[arch.RAX] = (1 << 64) - arch.ERESTARTNOHAND
    return arch.pack_registers(registers)


def leave_rseq_section(registers: list[int], section: bytes) -> None:
    """Move a thread stopped inside of a restartable sequence to its abort handler, as the kernel would.

    ``section``: the struct rseq_cs (32 bytes) that its struct rseq points to.
    """
    start = int.from_bytes(section[8:16], "little")
    length = int.from_bytes(section[16:24], "little")
    abort = int.from_bytes(section[24:32], "little")
    if start <= arch.program_counter(registers) < start + length:
        arch.set_program_counter(registers, abort)


def for_resume(image: bytes, deliverable: int) -> bytes:
    """Return the registers with which a restored thread goes on.

    Without a signal to deliver the kernel does not look at an interrupted call again, so it is rewound
    here. ``deliverable``: queued signals that are not blocked, bit N-1 for signal N.
    """
    values = arch.unpack_registers(image)
    call = arch.interrupted_call(values)
    if call is None or deliverable or call[1] not in _RESTARTED:
        return image
    arch.rewind_call(values)
    return arch.pack_registers(values)


def to_sleep_on(image: bytes, *, is_over: bool) -> bytes:
    """Return the registers with which a restored thread goes on with the sleep that it has begun again."""
    values = arch.unpack_registers(image)
    if is_over:
        arch.forget_call(values)
        values[arch.RAX] = 0
    else:
        arch.rewind_call(values)
        values[arch.RAX] = _RESTART_SYSCALL
    return arch.pack_registers(values)


_RESTARTED = (arch.ERESTARTSYS, arch.ERESTARTNOINTR, arch.ERESTARTNOHAND)
