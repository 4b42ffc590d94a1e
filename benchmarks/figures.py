"""Turn repetitions into figures, and figures into text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Self

from benchmarks.cases import Unit


@dataclass(frozen=True, slots=True)
class Figure:
    """The middle of several repetitions, and how far they spread."""

    middle: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Summarise repetitions, of which there is at least one."""
        return cls(median(values), min(values), max(values))

    @classmethod
    def of_any(cls, values: Sequence[float]) -> Self | None:
        """Summarise repetitions; None if there are none."""
        return cls.of(values) if values else None

    def text(self, unit: Unit) -> str:
        """Print the median, and the spread where there is one."""
        number, scale, name = _SHOWN[unit]
        middle, least, most = (number(value / scale) for value in (self.middle, self.least, self.most))
        spread = "" if least == most else f" ({least} to {most})"
        return f"{middle}{name}{spread}"


def ratio(ours: Figure | None, theirs: Figure | None) -> float | None:
    """Divide the medians; None if one is missing or the divisor is nought."""
    if ours is None or theirs is None or theirs.middle == 0:
        return None
    return ours.middle / theirs.middle


def significant(value: float) -> str:
    """Print three digits that matter, and never an exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


_SHOWN: dict[Unit, tuple[Callable[[float], str], int, str]] = {
    "us": (significant, 1000, " ms"),
    "bytes": (significant, 1 << 20, " MiB"),
    "count": ("{:,.0f}".format, 1, ""),
}
"""How people are shown a unit: the number's form, its scale, and its name."""
