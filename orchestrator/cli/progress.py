"""A progress bar on the terminal, for what takes long."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, int, int], None]

_QUIET_SECONDS = 0.5


@contextmanager
def progress_bar(title: str) -> Iterator[Progress | None]:
    """Give a function that draws the bar once the work has gone on for a while; None where nobody looks."""
    if not sys.stderr.isatty():
        yield None
        return
    bar = _Bar(title)
    try:
        yield bar.update
    finally:
        bar.close()


class _Bar:
    def __init__(self, title: str) -> None:
        self._title = title
        self._began = time.monotonic()
        self._stop: Callable[[], None] | None = None
        self._draw: Callable[[int, int], None] | None = None

    def update(self, _what: str, done: int, total: int) -> None:
        if self._draw is None:
            # Most checkpoints are over before a person could read a bar, and rich takes time to import.
            if time.monotonic() - self._began < _QUIET_SECONDS:
                return
            self._open()
        assert self._draw is not None
        self._draw(done, total)

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TimeRemainingColumn(),
        )
        # No refresh thread: orch forks.
        drawn = Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False)
        task = drawn.add_task(self._title)
        drawn.start()

        def draw(done: int, total: int) -> None:
            drawn.update(task, completed=done, total=total, refresh=True)

        self._draw = draw
        self._stop = drawn.stop

    def close(self) -> None:
        if self._stop is not None:
            self._stop()
