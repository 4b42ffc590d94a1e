"""Draw in SVG: lines, boxes and text, in colours that can be read on a light page and on a dark one."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Literal

Anchor = Literal["start", "middle", "end"]

STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 15px; font-weight: 600 }
.page { fill: #ffffff }
.rule { stroke: #d1d9e0; stroke-width: 1 }
.spread { stroke: #1f2328; stroke-width: 1; opacity: .6 }
.first { fill: #2f6fdb; stroke: #2f6fdb }
.second { fill: #d9822b; stroke: #d9822b }
.line { fill: none; stroke-width: 2 }
.dashed { stroke-dasharray: 6 4 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .page { fill: #0d1117 }
  .rule { stroke: #3d444d }
  .spread { stroke: #e6edf3 }
  .first { fill: #5b9bf8; stroke: #5b9bf8 }
  .second { fill: #f0a050; stroke: #f0a050 }
  .line { fill: none }
}
"""
"""A viewer that knows nothing of dark pages shows a light card."""


class Drawing:
    """A picture in the making; sizes are in pixels, from the upper left corner."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.width = width
        self.height = height
        self._title = title
        self._parts = [f'<rect class="page" width="{width}" height="{height}" rx="6"/>']
        self.text(16, 26, title, kind="title")

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str = "rule") -> None:
        """Draw a straight line."""
        self._parts.append(f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')

    def box(self, x: float, y: float, width: float, height: float, kind: str) -> None:
        """Fill a rectangle."""
        self._parts.append(
            f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="1.5"/>'
        )

    def dot(self, x: float, y: float, kind: str) -> None:
        """Draw a point of a curve."""
        self._parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>')

    def curve(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        """Join points by lines."""
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(f'<polyline class="line {kind}" points="{joined}"/>')

    def text(self, x: float, y: float, text: str, anchor: Anchor = "start", kind: str = "") -> None:
        """Write one line; ``y`` is its base line."""
        styled = f' class="{kind}"' if kind else ""
        self._parts.append(f'<text{styled} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>')

    def render(self) -> str:
        """Return the file."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" height="{self.height}"'
            f' viewBox="0 0 {self.width} {self.height}" role="img">'
        )
        return "\n".join(
            [head, f"<title>{escape(self._title)}</title>", f"<style>\n{STYLE}</style>", *self._parts, "</svg>", ""]
        )
