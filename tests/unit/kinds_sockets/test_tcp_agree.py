"""What the records of the two ends of a connection say, though they were not read at the same time."""

from __future__ import annotations

import msgspec
import pytest

from orchestrator.kinds.sockets.refused import Refused
from orchestrator.kinds.sockets.tcp_agree import AgreeingEnd, agree, agreed
from orchestrator.kinds.sockets.tcp_client import not_received
from orchestrator.kinds.sockets.tcp_repair import RepairWindow, TcpState

TOP = 1 << 32


def end(
    send_seq: int, sent: bytes, receive_seq: int, received: bytes, *, unsent: int = 0, window: int = 1000
) -> TcpState:
    behind = (receive_seq + len(received)) % TOP
    return TcpState(
        send_seq=send_seq % TOP,
        receive_seq=receive_seq % TOP,
        send_queue=sent,
        unsent=unsent,
        receive_queue=received,
        mss=1000,
        send_scale=7,
        receive_scale=7,
        sack=True,
        timestamps=True,
        timestamp=1,
        window=RepairWindow(behind, 5000, 60000, window, behind),
    )


@pytest.mark.parametrize("start", [100, TOP - 3])
def test_what_has_arrived_is_not_sent_again(start: int) -> None:
    # six bytes were sent, the first four of which have arrived; two more were not sent yet
    here = end(start, b"abcdefgh", 7, b"", unsent=2)
    there = end(7, b"", start - 2, b"xyabcd", window=100)
    now = agreed(here, there)
    assert now is not None
    assert (now.send_seq, now.send_queue, now.unsent) == ((start + 4) % TOP, b"efgh", 4)
    assert now.window.snd_wnd == 100
    assert agreed(there, here) == msgspec.structs.replace(
        there, window=msgspec.structs.replace(there.window, snd_wnd=1000)
    )


def test_what_has_arrived_was_sent_after_all() -> None:
    now = agreed(end(100, b"abcdef", 7, b"", unsent=6), end(7, b"", 100, b"abc"))
    assert now is not None
    assert (now.send_seq, now.send_queue, now.unsent) == (103, b"def", 3)


def test_an_end_that_was_read_too_early_is_read_again() -> None:
    # the acknowledgement of "abc" was seen here, but "abc" itself was not there yet
    later = end(7, b"", 100, b"abc")
    taken: list[TcpState] = []
    here = AgreeingEnd(end(103, b"def", 7, b""), taken.append, lambda: pytest.fail("was in time"))
    there = AgreeingEnd(end(7, b"", 100, b""), taken.append, lambda: later)
    agree(here, there)
    assert [state.send_queue for state in taken] == [b"def", b""]
    assert taken[1].receive_queue == b"abc"


def test_ends_that_do_not_come_to_agree() -> None:
    state = end(103, b"", 7, b"")
    never = AgreeingEnd(state, lambda _: None, lambda: end(7, b"", 100, b""))
    with pytest.raises(Refused):
        agree(AgreeingEnd(state, lambda _: None, lambda: state), never)


def test_what_waits_at_a_listener_is_not_sent_to_it_again() -> None:
    assert not_received(b"cdef", acknowledged=2, received=2) == b"cdef"
    assert not_received(b"cdef", acknowledged=2, received=5) == b"f"
    assert not_received(b"cdef", acknowledged=2, received=6) == b""
