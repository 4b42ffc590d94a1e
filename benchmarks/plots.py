"""Two kinds of picture: bars of the systems side by side, and curves over a size. Both on logarithmic scales."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.figures import Figure
from benchmarks.svg import Drawing

KINDS = ("first", "second")
"""How the first and the second system are drawn."""
_LABEL, _MOST, _VALUE = 120, 480, 150
_BAR, _BETWEEN = 12, 16
_TOP, _BOTTOM = 64, 34
_CURVES = (620, 360)
_MARGIN = 1.4

Text = Callable[[float], str]
"""Writes a value for people."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A logarithmic scale."""

    least: float
    most: float

    @classmethod
    def over(cls, values: Sequence[float]) -> Scale:
        """Return the decades that hold all of ``values``, which are above nought."""
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        return cls(10.0**low, 10.0 ** max(high, low + 1))

    @classmethod
    def around(cls, values: Sequence[float]) -> Scale:
        """Return a scale that begins just before ``values`` and ends just behind them."""
        return cls(min(values) / _MARGIN, max(values) * _MARGIN)

    def part(self, value: float) -> float:
        """Say where a value lies, from 0 to 1."""
        return math.log(value / self.least) / math.log(self.most / self.least)

    def decades(self) -> Iterator[float]:
        """Yield the powers of ten."""
        value = self.least
        while value <= self.most * 1.001:
            yield value
            value *= 10


@dataclass(frozen=True, slots=True)
class Group:
    """Bars that belong together: one a system, None where there is no figure."""

    label: str
    figures: Sequence[Figure | None]


def bars(title: str, systems: Sequence[str], groups: Sequence[Group], text: Text) -> str:
    """Draw the figures of each group as bars beside each other, with the spread as a thin line."""
    found = [figure for group in groups for figure in group.figures if figure is not None]
    scale = Scale.over([value for one in found for value in (one.least, one.middle, one.most) if value > 0] or [1])
    each = len(systems) * (_BAR + 2) + _BETWEEN
    drawing = Drawing(_LABEL + _MOST + _VALUE, _TOP + each * len(groups) + _BOTTOM, title)
    _legend(drawing, [(name, KINDS[number], False) for number, name in enumerate(systems)])
    bottom = drawing.height - _BOTTOM
    for value in scale.decades():
        x = _LABEL + _MOST * scale.part(value)
        drawing.line(x, _TOP - 6, x, bottom)
        drawing.text(x, bottom + 18, text(value), "middle")
    for number, group in enumerate(groups):
        y = _TOP + each * number
        drawing.text(_LABEL - 8, y + (each - _BETWEEN) / 2 + 4, group.label, "end")
        for system, figure in enumerate(group.figures):
            _bar(drawing, y + system * (_BAR + 2), figure, scale, KINDS[system], text)
    return drawing.render()


def _bar(drawing: Drawing, y: float, figure: Figure | None, scale: Scale, kind: str, text: Text) -> None:
    if figure is None or figure.middle <= 0:
        drawing.text(_LABEL + 4, y + _BAR - 2, "no figure")
        return
    length = _MOST * scale.part(figure.middle)
    drawing.box(_LABEL, y, length, _BAR, kind)
    end = length
    if 0 < figure.least < figure.most:
        low, end = (_MOST * scale.part(value) for value in (figure.least, figure.most))
        drawing.line(_LABEL + low, y + _BAR / 2, _LABEL + end, y + _BAR / 2, "spread")
    drawing.text(_LABEL + max(length, end) + 6, y + _BAR - 2, text(figure.middle))


@dataclass(frozen=True, slots=True)
class Curve:
    """One system's figures over a size."""

    label: str
    kind: str
    dashed: bool
    points: Sequence[tuple[float, Figure]]


def curves(title: str, across: str, found: Sequence[Curve], across_text: Text, text: Text) -> str:
    """Draw curves over a size, both axes logarithmic."""
    width, height = _CURVES
    left, top = 80, _TOP + 20
    drawing = Drawing(left + width + 40, top + height + 56, title)
    sizes = [size for curve in found for size, _ in curve.points] or [1]
    values = [value for curve in found for _, figure in curve.points for value in (figure.least, figure.most)]
    x_scale, y_scale = Scale.around(sizes), Scale.over([value for value in values if value > 0] or [1])
    _legend(drawing, [(curve.label, curve.kind, curve.dashed) for curve in found])
    for value in sorted({*sizes}):
        x = left + width * x_scale.part(value)
        drawing.line(x, top, x, top + height)
        drawing.text(x, top + height + 18, across_text(value), "middle")
    for value in y_scale.decades():
        y = top + height * (1 - y_scale.part(value))
        drawing.line(left, y, left + width, y)
        drawing.text(left - 8, y + 4, text(value), "end")
    drawing.text(left + width / 2, top + height + 42, across, "middle")
    for curve in found:
        places = [
            (left + width * x_scale.part(size), top + height * (1 - y_scale.part(figure.middle)), figure)
            for size, figure in curve.points
            if figure.middle > 0
        ]
        drawing.curve([(x, y) for x, y, _ in places], f"{curve.kind} dashed" if curve.dashed else curve.kind)
        for x, y, figure in places:
            if 0 < figure.least < figure.most:
                low, high = (top + height * (1 - y_scale.part(value)) for value in (figure.least, figure.most))
                drawing.line(x, low, x, high, "spread")
            drawing.dot(x, y, curve.kind)
    return drawing.render()


def _legend(drawing: Drawing, entries: Sequence[tuple[str, str, bool]]) -> None:
    x = 16.0
    for label, kind, dashed in entries:
        if dashed:
            drawing.curve([(x, 44), (x + 22, 44)], f"{kind} dashed")
        else:
            drawing.box(x, 40, 22, 8, kind)
        drawing.text(x + 28, 48, label)
        x += 28 + 7.0 * len(label) + 24
