"""Ways to run all tests of jobs that differ in how images are written or read: ORCH_TEST_MODE names one.

What a test expects must hold in every mode.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

FILLING = ("--lazy", "--pager", "everything")
"""All memory that may comes while the job runs."""
ON_DEMAND = ("--lazy", "--pager", "on-demand,everything")
"""Nothing comes that nobody asks for: whatever the program does meets memory that is missing."""

RESTORE_OPTIONS: dict[str, tuple[str, ...]] = {"": (), "lazy": FILLING, "on-demand": ON_DEMAND}
"""By mode."""

SEES_ITS_MODE = frozenset({"maps_same"} if os.environ.get("ORCH_TEST_MODE") else ())
"""Programs that look at what the mode may change: smaps tells which memory is watched."""

MODE = os.environ.get("ORCH_TEST_MODE", "")

if MODE not in RESTORE_OPTIONS:
    raise RuntimeError(f"ORCH_TEST_MODE is {MODE!r}; it may be {', '.join(filter(None, RESTORE_OPTIONS))}")


def in_mode(argv: Sequence[str]) -> list[str]:
    """Return a command of orch, without its name, with what the mode adds."""
    added = RESTORE_OPTIONS[MODE] if argv[0] == "restore" else ()
    return [argv[0], *added, *argv[1:]]
