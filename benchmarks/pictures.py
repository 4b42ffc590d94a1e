"""The pictures of a run: one for each measure that says much, and two that show what grows with what."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.cases import MEASURE_BY_KEY, Scaling, Unit
from benchmarks.figures import Figure, significant
from benchmarks.plots import KINDS, Curve, Group, bars, curves
from benchmarks.trial import Outcome

SYSTEMS = ("orch", "CRIU")
BARS = {
    "frozen": ("frozen_us", "How long a job that goes on stands still"),
    "frozen-at-the-end": ("kill_frozen_us", "How long a job that ends is held, until its image is written"),
    "checkpoint-command": ("checkpoint_wall_us", "The whole command of a checkpoint, job goes on"),
    "restore": ("restore_us", "Restore: the work"),
    "restore-command": ("restore_wall_us", "Restore: the whole command"),
    "image-size": ("image_bytes", "Size of the image"),
    "checkpoint-memory": ("checkpoint_rss_bytes", "Peak memory of the checkpoint command"),
    "restore-memory": ("restore_rss_bytes", "Peak memory of the restore command"),
}
"""Name of the picture -> measure and title."""
CURVES = (("frozen_us", "frozen", False), ("restore_us", "restored", True))
_SMALL = ((1e6, "s"), (1e3, "ms"), (1.0, "us"))
_LARGE = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def draw(outcomes: Sequence[Outcome], scalings: Sequence[tuple[Scaling, Sequence[Outcome]]]) -> dict[str, str]:
    """Return the pictures that there are figures for, by name."""
    pictures = {}
    for name, (key, title) in BARS.items():
        groups = [
            Group(outcome.case.name, [Figure.of_any(outcome.values(system, key)) for system in SYSTEMS])
            for outcome in outcomes
        ]
        if any(figure is not None for group in groups for figure in group.figures):
            unit = MEASURE_BY_KEY[key].unit
            pictures[name] = bars(title, SYSTEMS, groups, lambda value, unit=unit: short(value, unit))  # type: ignore[misc]
    for scaling, found in scalings:
        lines = [
            Curve(f"{system} {label}", KINDS[number], dashed, points)
            for key, label, dashed in CURVES
            for number, system in enumerate(SYSTEMS)
            if (points := _points(scaling, found, system, key))
        ]
        if lines:
            title = f"Frozen and restore time over {scaling.title}"
            across = scaling.across
            pictures[f"over-{scaling.name}"] = curves(
                title, across, lines, lambda value: f"{value:,.0f}", lambda value: short(value, "us")
            )
    return pictures


def _points(scaling: Scaling, found: Sequence[Outcome], system: str, key: str) -> list[tuple[float, Figure]]:
    figures = [(scaling.size(outcome.case), Figure.of_any(outcome.values(system, key))) for outcome in found]
    return [(size, figure) for size, figure in figures if figure is not None]


def short(value: float, unit: Unit) -> str:
    """Write a value with the unit that suits it."""
    if unit == "count":
        return f"{value:,.0f}"
    for size, name in _SMALL if unit == "us" else _LARGE:
        if value >= size:
            return f"{significant(value / size).removesuffix('.00').removesuffix('.0')} {name}"
    return f"{significant(value)} {'us' if unit == 'us' else 'B'}"
