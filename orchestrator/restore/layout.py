"""Where a restore's own things lie in memory: the arena."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from orchestrator.errors import CannotHonour
from orchestrator.ids import FarAddr
from orchestrator.kinds.memory.rebuild import Span
from orchestrator.kinds.memory.record import AddressSpace

PARKING_BYTES = 1 << 20
_LOWEST, _HIGHEST = 0x1000_0000, 0x7FFE_0000_0000
_MARGIN = 16 << 20


class Layout(NamedTuple):
    """Addresses that no restored process uses."""

    arena: FarAddr
    arena_bytes: int

    @property
    def parking(self) -> int:
        """Where vvar and vdso wait; right behind the arena."""
        return self.arena + self.arena_bytes

    @property
    def keep_out(self) -> Span:
        """Arena and parking."""
        return Span(self.arena, self.parking + PARKING_BYTES)


def plan_layout(memories: Sequence[AddressSpace], arena_bytes: int) -> Layout:
    """Find room that is free in every process of the image."""
    spans = merged((vma.start, vma.end) for memory in memories for vma in memory.vmas if vma.end < _HIGHEST * 2)
    needed = arena_bytes + PARKING_BYTES + 2 * _MARGIN
    at = _LOWEST
    for start, end in [*spans, (_HIGHEST, _HIGHEST)]:
        if start - at >= needed:
            break
        at = max(at, end)
    else:
        raise CannotHonour(f"no {needed >> 20} MiB of addresses are free in all processes of the image")
    base = at + _MARGIN + 0xFFFFF & ~0xFFFFF
    return Layout(FarAddr(base), arena_bytes)


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Merge overlapping ranges, ascending."""
    result: list[tuple[int, int]] = []
    for start, end in sorted(set(ranges)):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result
