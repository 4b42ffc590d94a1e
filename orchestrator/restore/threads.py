"""Who makes which thread: threads that have filters in common get them from one of their own.

A chain of seccomp filters can only be shared by inheriting it. So a thread is made by one that has just those of
its filters that both have, before that one installs more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from orchestrator.ids import ObjectId
from orchestrator.kinds.task.process import Thread
from orchestrator.tape.build import Tape


class ThreadTapes(msgspec.Struct):
    """What one thread plays."""

    thread: Thread
    tape: Tape
    births: list[ThreadTapes] = msgspec.field(default_factory=list)
    """In the order of the clone3 entries of ``tape``."""


Beget = Callable[[Tape, Thread, Sequence[Thread], int], ThreadTapes]
"""(tape of the maker, thread, those that it makes in its turn, filters that it inherits) -> its tapes."""


def beget(
    tape: Tape,
    maker: Thread,
    others: Sequence[Thread],
    depth: int,
    install: Callable[[Tape, ObjectId], None],
    make: Beget,
) -> list[ThreadTapes]:
    """Write what gives ``maker`` its filters from number ``depth`` on and makes ``others``; all have those before."""
    births: list[ThreadTapes] = []
    while True:
        wanted = _filter(maker, depth)
        parting: dict[ObjectId | None, list[Thread]] = {}
        for thread in others:
            if wanted is None or _filter(thread, depth) != wanted:
                parting.setdefault(_filter(thread, depth), []).append(thread)
        for following, group in parting.items():
            if following is None:
                births += [make(tape, thread, (), depth) for thread in group]
            else:
                births.append(make(tape, group[0], group[1:], depth))
        if wanted is None:
            return births
        others = [thread for thread in others if _filter(thread, depth) == wanted]
        install(tape, wanted)
        depth += 1


def _filter(thread: Thread, depth: int) -> ObjectId | None:
    chain = thread.seccomp.filters if thread.seccomp is not None else ()
    return chain[depth] if depth < len(chain) else None
