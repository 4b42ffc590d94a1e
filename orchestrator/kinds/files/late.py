"""Files that show who opened them: each owning process opens them for itself, when all processes are there.

Until then something else stands for them in the depot and at their numbers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence

from orchestrator.ids import DepotFd, ObjectId, Pid
from orchestrator.kinds.files.kind import O_CLOEXEC, Depot, FileTable, OpenFile, Settling
from orchestrator.tape.build import Tape


def hold_place(file: OpenFile, depot: Depot) -> None:
    """Leave something harmless at the standing number."""
    depot.tape.eventfd2(0, O_CLOEXEC)
    depot.keep(0, depot.slot(file.id))


def open_in_place(file: OpenFile, settling: Settling, write_open: Callable[[Tape], None]) -> None:
    """Put what ``write_open`` opens at all numbers of this file in one table."""
    tape = settling.tape
    cloexec = os.O_CLOEXEC if settling.cloexec else 0
    first_here = min(number for number, of in settling.numbers.items() if of == file.id)
    if settling.fd == first_here:
        write_open(tape)
        tape.dup3(settling.free, settling.fd, cloexec)
        tape.close(settling.free)
    else:
        tape.dup3(first_here, settling.fd, cloexec)


def shared_late(files: Iterable[OpenFile], tables: Iterable[FileTable]) -> dict[ObjectId, list[ObjectId]]:
    """Return those of ``files`` that several tables have, each with its tables in order."""
    late = {file.id for file in files}
    holders: dict[ObjectId, list[ObjectId]] = {}
    for table in tables:
        for of in {descriptor.file for descriptor in table.descriptors} & late:
            holders.setdefault(of, []).append(table.id)
    return {of: sorted(holding) for of, holding in holders.items() if len(holding) > 1}


def hand_round(
    shared: Mapping[ObjectId, Sequence[ObjectId]],
    placers: Mapping[ObjectId, Pid],
    slot: Callable[[ObjectId], DepotFd],
    write_open: Callable[[ObjectId, Tape], None],
) -> list[dict[Pid, Tape]]:
    """Write how a file that several processes share, but one must open, comes to the others; a barrier behind each.

    It takes the place of what stands for it at its number of the depot. ``write_open`` leaves it at 0. ``placers``:
    the process that places each table. Nobody has anything but the depot's numbers yet.
    """
    opening: dict[Pid, Tape] = {}
    fetching: dict[Pid, Tape] = {}
    for of, (first, *others) in sorted(shared.items()):
        opener = placers[first]
        tape = opening.setdefault(opener, Tape(f"{opener}: open for others, too"))
        write_open(of, tape)
        tape.dup3(0, slot(of), O_CLOEXEC)
        tape.close(0)
        for table in others:
            who = placers[table]
            tape = fetching.setdefault(who, Tape(f"{who}: fetch what others opened"))
            tape.pidfd_open(opener, 0)
            tape.pidfd_getfd(0, slot(of), 0)
            tape.dup3(1, slot(of), O_CLOEXEC)
            tape.close(0)
            tape.close(1)
    return [opening, fetching]
