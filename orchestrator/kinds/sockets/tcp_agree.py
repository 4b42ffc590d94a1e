"""Bring the records of the two ends of a connection into agreement.

They are read one after the other, while packets may still be on their way, or be sent by the kernel's own timers. What
one end has received need not be sent again by the other, and is not sent for the first time either.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from orchestrator.kinds.sockets.refused import Refused
from orchestrator.kinds.sockets.tcp_repair import TcpState

_ATTEMPTS = 16
_HALF = 1 << 31


class AgreeingEnd(msgspec.Struct):
    """One end of a connection while its record is made."""

    state: TcpState
    take: Callable[[TcpState], None]
    """Puts another state into the record."""
    read_again: Callable[[], TcpState]


def agreed(state: TcpState, other: TcpState) -> TcpState | None:
    """Return the state of an end with nothing on its way to the other; None if that was read too early."""
    heard = other.receive_seq + len(other.receive_queue) & 0xFFFFFFFF
    ahead = heard - state.send_seq & 0xFFFFFFFF
    if ahead > len(state.send_queue):
        return None
    room = other.window.rcv_wup + other.window.rcv_wnd - heard & 0xFFFFFFFF
    window = msgspec.structs.replace(state.window, snd_wnd=min(room if room < _HALF else 0, state.window.max_window))
    queue = state.send_queue[ahead:]
    return msgspec.structs.replace(state, send_seq=heard, send_queue=queue, unsent=len(queue), window=window)


def agree(one: AgreeingEnd, other: AgreeingEnd) -> None:
    """Let the two ends of a connection agree. Raises Refused if they do not come to it."""
    for _ in range(_ATTEMPTS):
        first, second = agreed(one.state, other.state), agreed(other.state, one.state)
        if first is not None and second is not None:
            one.take(first)
            other.take(second)
            return
        if first is None:
            other.state = other.read_again()
        if second is None:
            one.state = one.read_again()
    raise Refused("what is on its way over it does not arrive", "try again")
