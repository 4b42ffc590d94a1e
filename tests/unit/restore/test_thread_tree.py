"""Threads with filters in common are made by one of their own; what all have is installed once."""

from __future__ import annotations

import msgspec

from harness.records import thread
from orchestrator.ids import ObjectId
from orchestrator.kinds.task.process import Thread
from orchestrator.kinds.task.seccomp import Seccomp
from orchestrator.restore.threads import ThreadTapes, beget
from orchestrator.tape.build import Tape


def _with(tid: int, *filters: int) -> Thread:
    seccomp = Seccomp(strict=False, filters=tuple(map(ObjectId, filters))) if filters else None
    return msgspec.structs.replace(thread(tid), seccomp=seccomp)


def _made(*threads: Thread) -> dict[int, tuple[int, list[str]]]:
    """Return for each thread its maker and what it does, in order."""
    done: dict[int, tuple[int, list[str]]] = {int(threads[0].tid): (0, [])}
    log: list[tuple[int, str]] = []
    who = [int(threads[0].tid)]

    def install(_: Tape, of: ObjectId) -> None:
        done[who[-1]][1].append(f"filter {of}")
        log.append((who[-1], f"filter {of}"))

    def make(_: Tape, one: Thread, others: object, depth: int) -> ThreadTapes:
        tid = int(one.tid)
        done[who[-1]][1].append(f"make {tid}")
        done[tid] = (who[-1], [])
        who.append(tid)
        births = beget(Tape(), one, others, depth, install, make)  # type: ignore[arg-type]
        who.pop()
        return ThreadTapes(one, Tape(), births)

    beget(Tape(), threads[0], threads[1:], 0, install, make)
    return done


def test_without_filters_the_leader_makes_all() -> None:
    assert _made(_with(1), _with(2), _with(3)) == {1: (0, ["make 2", "make 3"]), 2: (1, []), 3: (1, [])}


def test_a_common_chain_is_installed_once_before_any_thread() -> None:
    chain = ["filter 0", "filter 1", "make 2", "make 3"]
    assert _made(_with(1, 0, 1), _with(2, 0, 1), _with(3, 0, 1)) == {1: (0, chain), 2: (1, []), 3: (1, [])}


def test_who_has_fewer_is_made_before_the_next_is_installed() -> None:
    made = _made(_with(1, 0, 1), _with(2), _with(3, 0))
    assert made[1] == (0, ["make 2", "filter 0", "make 3", "filter 1"])


def test_who_has_more_in_common_is_made_by_one_of_them() -> None:
    made = _made(_with(1), _with(2, 5), _with(3, 5, 6), _with(4, 7))
    assert made == {
        1: (0, ["make 2", "make 4"]),
        2: (1, ["filter 5", "make 3"]),
        3: (2, ["filter 6"]),
        4: (1, ["filter 7"]),
    }
