"""Calls that the kernel goes on with by a restart block of its own: which call it was, and what is left of a sleep.

The block does not travel. So a call is made again as it was; but of a sleep that has told the program what is left
(its last argument), a restore makes the rest alone, and leaves it to the kernel to go on with that.
"""

from __future__ import annotations

import struct

from orchestrator.ids import FarAddr
from orchestrator.kinds.record import Record
from orchestrator.linux.arch import x86_64 as arch
from orchestrator.linux.syscalls import SYSCALLS
from orchestrator.tape.memory import Memory

_NANOSLEEP, _CLOCK_NANOSLEEP, _POLL, _FUTEX, _RESTART = (
    SYSCALLS[name].x86_64 for name in ("nanosleep", "clock_nanosleep", "poll", "futex", "restart_syscall")
)
_LOOK_BACK = 64
_MOVE_TO_EAX = 0xB8
_TIMESPEC = struct.Struct("<qq")
_SECOND = 1_000_000_000
_LOWEST_ADDRESS = 4096
_FUTEX_WAITS = frozenset((0, 9))
"""FUTEX_WAIT, FUTEX_WAIT_BITSET."""
_FUTEX_OPTIONS = 128 | 256
"""FUTEX_PRIVATE_FLAG, FUTEX_CLOCK_REALTIME."""
_MONOTONIC, _CLOCKS = 1, (0, 1, 7, 11)
"""REALTIME, MONOTONIC, BOOTTIME, TAI."""


class Sleep(Record, frozen=True):
    """What is left of a nanosleep(2) or clock_nanosleep(2)."""

    clock: int
    left: tuple[int, int]
    """Seconds and nanoseconds."""
    tells: int
    """Where the kernel is to say what is left when it is interrupted."""


def name_restarted_call(registers: list[int], memory: Memory) -> None:
    """Put the number of the call into registers of a thread that is in restart_syscall(2).

    Once a stop has interrupted a call with a restart block, the kernel only knows that it goes on with some call. Its
    number stands in the code before it, or its arguments tell.
    """
    call = arch.interrupted_call(registers)
    if call is not None and call == (_RESTART, arch.ERESTART_RESTARTBLOCK):
        number = _in_code(registers, memory) or _by_arguments(registers, memory)
        assert number is not None
        registers[arch.ORIG_RAX] = number


def _in_code(registers: list[int], memory: Memory) -> int | None:
    """Look for the nearest "mov $number,%eax" before the call."""
    end = arch.program_counter(registers) - len(arch.SYSCALL_INSTRUCTION)
    code = _read(memory, end - _LOOK_BACK, _LOOK_BACK)
    for at in range(len(code) - 5, -1, -1):
        number = int.from_bytes(code[at + 1 : at + 5], "little")
        if code[at] == _MOVE_TO_EAX and number in (_NANOSLEEP, _CLOCK_NANOSLEEP, _POLL, _FUTEX):
            return number
    return None


def _by_arguments(registers: list[int], memory: Memory) -> int | None:
    first, second, third, fourth, *_ = arch.call_arguments(registers)
    if first < _LOWEST_ADDRESS:
        return _CLOCK_NANOSLEEP if second == 0 and _timespec(memory, third) else _POLL
    if second >= _LOWEST_ADDRESS or (second == 0 and _timespec(memory, first)):
        return _NANOSLEEP
    if second & ~_FUTEX_OPTIONS in _FUTEX_WAITS and first % 4 == 0 and _timespec(memory, fourth):
        return _FUTEX
    return _POLL


def _read(memory: Memory, address: int, size: int) -> bytes:
    try:
        return memory.read(FarAddr(address), size)
    except (OSError, OverflowError):
        return b""


def _timespec(memory: Memory, address: int) -> tuple[int, int] | None:
    content = _read(memory, address, _TIMESPEC.size) if address >= _LOWEST_ADDRESS else b""
    if len(content) != _TIMESPEC.size:
        return None
    seconds, nanoseconds = _TIMESPEC.unpack(content)
    return (seconds, nanoseconds) if seconds >= 0 and 0 <= nanoseconds < _SECOND else None


def capture_sleep(registers: list[int], memory: Memory) -> Sleep | None:
    """Return what is left of the sleep that a stop has interrupted, if the kernel has told that.

    A program that gives the same place for both is told by its own argument already.
    """
    call = arch.interrupted_call(registers)
    if call is None or call[1] != arch.ERESTART_RESTARTBLOCK:
        return None
    first, second, third, fourth, *_ = arch.call_arguments(registers)
    if call[0] == _NANOSLEEP:
        clock, asked, tells = _MONOTONIC, first, second
    elif call[0] == _CLOCK_NANOSLEEP and first in _CLOCKS:
        clock, asked, tells = first, third, fourth
    else:
        return None
    left = _timespec(memory, tells) if tells != asked else None
    return Sleep(clock, left, tells) if left is not None else None
