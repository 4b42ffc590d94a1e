"""A tape that several tasks play is encoded once an address, and for each of them all the same."""

from __future__ import annotations

import pytest

from orchestrator.ids import FarAddr, Pid, Tid
from orchestrator.tape.build import Tape

AT, ELSEWHERE = FarAddr(0x10000), FarAddr(0x20000)


def written(*, repeated: bool) -> Tape:
    tape = Tape("ask")
    tape.is_repeated = repeated
    head = tape.space(16)
    tape.point(head, 8, tape.block(b"name"))
    tape.prctl(1, tape.space(8), head, tape.prctl(2))
    return tape


@pytest.mark.parametrize("at", [AT, ELSEWHERE])
def test_each_task_gets_its_own(at: FarAddr) -> None:
    tape = written(repeated=True)
    for pid, tid in ((1, 1), (1, 2), (3, 4)):
        for where in (AT, at):
            fresh = written(repeated=False).encode(where, Pid(pid), Tid(tid))
            assert tape.encode(where, Pid(pid), Tid(tid)) == fresh


def test_what_is_changed_is_encoded_anew() -> None:
    tape, fresh = written(repeated=True), written(repeated=False)

    def same() -> bool:
        return tape.encode(AT, Pid(1), Tid(1)) == fresh.encode(AT, Pid(1), Tid(1))

    assert same()
    blocks = [one.block(b"12345678") for one in (tape, fresh)]
    assert same()
    tape.close(3)
    fresh.close(3)
    assert same()
    for one, block in zip((tape, fresh), blocks, strict=True):
        one.store(block, 0, b"abc")
    assert same()
    assert b"abc45678" in tape.encode(AT, Pid(1), Tid(1))
