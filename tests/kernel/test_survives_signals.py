"""Signals and the timers that send them."""

from __future__ import annotations

import pytest

from harness.program import Program, Run
from harness.ways import WAYS, Way

PROGRAMS = [
    Program("signal_handlers"),
    Program("signal_masks"),
    Program("altstack_in_use"),
    Program("pending_signals"),
    Program("pending_shared"),
    Program("interval_timers"),
    Program("interval_timer_fires"),
    Program("posix_timers"),
    Program("posix_timer_thread"),
    Program("cpu_time_timers"),
]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.id)
def test_survives(run: Run, way: Way) -> None:
    way(run)
