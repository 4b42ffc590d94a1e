"""Play a tape in orch's own process, by the same kind of loop that a task plays it with."""

from __future__ import annotations

import ctypes
import mmap
from array import array
from collections.abc import Callable
from functools import cache

from orchestrator.ids import FarAddr, Pid, Tid
from orchestrator.linux.arch import x86_64 as arch
from orchestrator.tape.build import ENTRY_SIZE, Played, Tape, results_in

_WORDS = ENTRY_SIZE // 8
_FIRST_ARGUMENT = 1


def play_here(tape: Tape) -> Played:
    """Make the calls of a tape; raises TapeError as playing it elsewhere would, but goes on to the end first."""
    return tape.read_back(Repeated(tape).play())


class Repeated:
    """A tape that is played here again and again."""

    def __init__(self, tape: Tape) -> None:
        self._memory = mmap.mmap(-1, tape.size)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        encoded = tape.encode(FarAddr(self._address), Pid(0), Tid(0))
        self._calls = len(tape)
        self._entries = array("Q", encoded[: self._calls * ENTRY_SIZE])
        self._rest = encoded[self._calls * ENTRY_SIZE :]

    def play(self, first_argument: int | None = None) -> bytes:
        """Return the tape's memory after the play. Every call gets ``first_argument``, if there is one."""
        if first_argument is not None:
            self._entries[_FIRST_ARGUMENT::_WORDS] = array("Q", [first_argument]) * self._calls
        size = self._calls * ENTRY_SIZE
        memory = self._memory
        memory[:size] = self._entries
        memory[size:] = self._rest
        _loop()(self._address, self._address + size)
        return memory[:]

    def outcome(self, memory: bytes) -> tuple[bytes, bytes]:
        """Return what tells one play from another: the results of the calls, and the data."""
        return results_in(memory, self._calls).tobytes(), memory[self._calls * ENTRY_SIZE :]


@cache
def _loop() -> Callable[[int, int], None]:
    """Put the loop into memory where it may run."""
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code[: len(arch.TAPE_HERE)] = arch.TAPE_HERE
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
    loop = function(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    loop.code = code  # type: ignore[attr-defined]  # lives as long
    return loop
