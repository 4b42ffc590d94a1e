"""Files that show who opened them: each owning process opens them for itself, when all processes are there.

Until then something else stands for them in the depot and at their numbers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from orchestrator.kinds.files.kind import O_CLOEXEC, Depot, FdView, OpenFile, Settling
from orchestrator.kinds.scope import Scope
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


def refuse_sharing(view: FdView, scope: Scope) -> None:
    """Note it if several processes turn out to share a file whose position would be lost."""
    scope.finishers.append(partial(_judge_sharing, view, scope))


def _judge_sharing(view: FdView, scope: Scope) -> None:
    assert view.files is not None
    held = view.files.at(view.pid, view.fd)
    if held is not None and view.files.tables_with(held.file) > 1:
        scope.unsupported(view.pid, view.what, "several processes share it, and each would have to open it anew")
