"""The terminal of ``orch restore`` takes the place of those that a job had from outside."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from collections.abc import Set as AbstractSet

import msgspec

from orchestrator.kinds.files.external import External
from orchestrator.kinds.terminals.records import OutsideTerminal
from orchestrator.linux import tty
from orchestrator.relay import Relay, own_terminal
from orchestrator.restoring import RestoreOptions
from orchestrator.snapshot import Snapshot


def take_place(
    snapshot: Snapshot, asked: RestoreOptions, given: AbstractSet[str]
) -> tuple[RestoreOptions, Relay | None]:
    """Hand orch's own terminal over, if orch is in its foreground, for what the user has ``given`` nothing.

    A terminal that controls a session of the job cannot be orch's own: a new one is connected to that.
    """
    had = {file.body.key for file in snapshot.files if isinstance(file.body, External)}
    missing = {key for key in had if key.startswith("tty[")} - given
    controlling = [
        record
        for record in snapshot.objects
        if isinstance(record, OutsideTerminal) and record.key not in given and _may_be_replaced(record.key, asked)
    ]
    if not missing and not controlling:
        return asked, None
    own = own_terminal()
    if own is None:
        return asked, None
    relay, place, keys = None, own, missing
    if controlling:
        first = controlling[0]
        relay = Relay(own, first.settings, first.size)
        # A terminal controls one session: others do without.
        place, keys = relay.slave, missing | {first.key}
    inherited = {**asked.inherited, **dict.fromkeys(keys, place)}
    return msgspec.structs.replace(
        asked, inherited=inherited, controlling=frozenset(r.key for r in controlling[:1])
    ), relay


@contextlib.contextmanager
def lent(snapshot: Snapshot, asked: RestoreOptions) -> Iterator[bool]:
    """Give a terminal that the job gets from orch the settings that the job had made on its old one, for a while.

    Only if orch is in its foreground. Yields whether its size is another than the old one's.
    """
    had = {file.body.key: file.body for file in snapshot.files if isinstance(file.body, External)}
    terminals = [key for key in had if had[key].settings and os.isatty(asked.inherited.get(key, -1))]
    own = own_terminal() if terminals and not asked.controlling else None
    if own is None:
        yield False
        return
    os.close(own)
    place, old = asked.inherited[terminals[0]], had[terminals[0]]
    before = tty.settings(place)
    tty.set_settings(place, old.settings)
    try:
        yield tty.window_size(place) != old.size
    finally:
        with contextlib.suppress(OSError):  # it may be gone
            tty.set_settings(place, before)


def _may_be_replaced(key: str, asked: RestoreOptions) -> bool:
    return not key.startswith("stdio[") or os.isatty(asked.inherited[key])
