"""Look into the pseudo-terminals of a held job.

A child of orch does it: it takes out what waits, and puts that back even if orch is killed meanwhile. Until then the
job stands still in any case.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence

import msgspec

from orchestrator.kinds.scope import Scope
from orchestrator.kinds.terminals.queues import is_idle, look_into, opened_peer
from orchestrator.kinds.terminals.records import Queues, Terminal
from orchestrator.linux import tty
from orchestrator.namespaces.inside import inside


def look_into_all(masters: Sequence[int], terminals: Sequence[Terminal], scope: Scope) -> list[Terminal]:
    """Return the records with what waits in them; ``masters`` are descriptors of ours."""
    looked = list(terminals)
    busy = []
    for place, (master, terminal) in enumerate(zip(masters, terminals, strict=True)):
        if terminal.slave == "never opened":
            continue
        with opened_peer(master) as slave:
            if tty.is_exclusive(slave):
                looked[place] = msgspec.structs.replace(terminal, slave_exclusive=True)
            if not is_idle(master, slave, terminal.settings, packet=terminal.packet):
                busy.append(place)

    def look() -> list[Queues]:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        return [_look_into(masters[place], terminals[place]) for place in busy]

    if busy:
        with scope.bound():
            answers = inside(next(iter(scope.pids)), (), look, list[Queues])
        for place, queues in zip(busy, answers, strict=True):
            looked[place] = msgspec.structs.replace(looked[place], queues=queues)
    return looked


def _look_into(master: int, terminal: Terminal) -> Queues:
    with opened_peer(master) as slave:
        if terminal.locked_settings:
            tty.lock_settings(slave, bytes(len(terminal.locked_settings)))
        try:
            return look_into(master, slave, terminal.settings, packet=terminal.packet)
        finally:
            if terminal.locked_settings:
                tty.lock_settings(slave, terminal.locked_settings)
