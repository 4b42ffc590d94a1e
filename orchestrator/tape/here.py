"""Play a tape in orch's own process, to learn what a child of ours starts out with."""

from __future__ import annotations

import ctypes
import struct

from orchestrator.ids import FarAddr, Pid, Tid
from orchestrator.linux.call import syscall
from orchestrator.tape.build import ENTRY_SIZE, Played, Tape


def play_here(tape: Tape) -> Played:
    """Make the calls of a tape one by one; raises TapeError as playing it elsewhere would."""
    buffer = ctypes.create_string_buffer(tape.size)
    address = ctypes.addressof(buffer)
    ctypes.memmove(address, tape.encode(FarAddr(address), Pid(0), Tid(0)), tape.size)
    for entry in range(len(tape)):
        at = entry * ENTRY_SIZE
        number, *arguments = struct.unpack_from("<q6q", buffer, at)
        try:
            result = syscall(number, *arguments)
        except OSError as error:
            result = -(error.errno or 0)
        struct.pack_into("<q", buffer, at + 72, result)
        target = struct.unpack_from("<Q", buffer, at + 56)[0]
        if target and result >= 0:
            struct.pack_into("<q", buffer, target - address, result)
    return tape.read_back(bytes(buffer))
