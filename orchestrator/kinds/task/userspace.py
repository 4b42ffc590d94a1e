"""Addresses that a thread gave the kernel: alternate stack, robust list, rseq area, tid to clear.

See sigaltstack(2), set_robust_list(2), rseq(2), set_tid_address(2).
"""

from __future__ import annotations

import struct

from orchestrator.kinds.record import Record
from orchestrator.kinds.task.kind import Answer
from orchestrator.tape.build import Played, Tape

_STACK_T = struct.Struct("<QiiQ")
_PR_GET_TID_ADDRESS = 40
_SS_DISABLE, _SS_ONSTACK = 2, 1


class UserAddresses(Record, frozen=True):
    """What one thread registered; 0 where nothing."""

    altstack: tuple[int, int, int]
    """ss_sp, ss_flags, ss_size."""
    robust_list: int
    robust_list_size: int
    clear_tid: int
    rseq: tuple[int, int, int, int]
    """Address, size, signature, flags."""


def ask_addresses(tape: Tape) -> Answer[UserAddresses]:
    """Ask a thread for all but its rseq area, which ptrace(2) tells."""
    stack = tape.space(_STACK_T.size)
    tape.sigaltstack(0, stack)
    head, size = tape.space(8), tape.space(8)
    tape.get_robust_list(0, head, size)
    clear = tape.space(8)
    tape.prctl(_PR_GET_TID_ADDRESS, clear, 0, 0, 0)

    def read(played: Played) -> UserAddresses:
        sp, flags, _, length = _STACK_T.unpack(played.data(stack))
        return UserAddresses(
            (sp, flags & ~_SS_ONSTACK, length),
            int.from_bytes(played.data(head), "little"),
            int.from_bytes(played.data(size), "little"),
            int.from_bytes(played.data(clear), "little"),
            (0, 0, 0, 0),
        )

    return read


def tell_addresses(tape: Tape, wanted: UserAddresses) -> None:
    """Register them in the thread itself, which has none."""
    sp, flags, size = wanted.altstack
    if not flags & _SS_DISABLE:
        tape.sigaltstack(_STACK_T.pack(sp, flags, 0, size), 0)
    if wanted.robust_list:
        tape.set_robust_list(wanted.robust_list, wanted.robust_list_size)
    if wanted.clear_tid:
        tape.set_tid_address(wanted.clear_tid)
    address, length, signature, flags = wanted.rseq
    if address:
        tape.rseq(address, length, flags, signature)
