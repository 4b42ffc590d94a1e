"""Pages that children share with each other and no longer with their parent, which has written to its own since.

fork(2) alone makes pages shared. So before its children are born a parent is given theirs; its own follow afterwards.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

import msgspec

from orchestrator.ids import ObjectId
from orchestrator.kinds.memory.rebuild import Span, inheritable, missing_runs, side_by_side
from orchestrator.kinds.memory.record import PageRun, Vma


def plan_heirlooms(
    spaces: Mapping[ObjectId, Sequence[Vma]], parents: Mapping[ObjectId, ObjectId], *, ascending: bool = True
) -> dict[ObjectId, Sequence[Vma]]:
    """Say for address spaces what they have while children are born, where that is not what is their own.

    ``spaces`` stand parents first, as they were captured. ``parents``: of each whose parent is among them.
    ``ascending``: whether all places were made in that order, as in an image that refers to no other.
    """
    if ascending and not _share_without_ancestors(spaces, parents):
        return {}
    children: dict[ObjectId, list[Sequence[Vma]]] = {}
    given: dict[ObjectId, Sequence[Vma]] = {}
    for id_ in reversed([*spaces]):
        heirs = children.get(id_, [])
        has = with_heirlooms(spaces[id_], heirs) if len(heirs) > 1 else spaces[id_]
        if has != spaces[id_]:
            given[id_] = has
        if id_ in parents:
            children.setdefault(parents[id_], []).append(has)
    return given


def _share_without_ancestors(spaces: Mapping[ObjectId, Sequence[Vma]], parents: Mapping[ObjectId, ObjectId]) -> bool:
    """Say whether somebody has a page whose place was made for one who is not its ancestor.

    Places are made ascending, process by process: so one look at each run tells.
    """
    firsts: list[int] = []  # places at which those of a space begin ...
    owners: list[ObjectId] = []  # ... and the space
    top = 0
    for id_, vmas in spaces.items():
        ancestors = {id_}
        above = parents.get(id_)
        while above is not None and above not in ancestors:
            ancestors.add(above)
            above = parents.get(above)
        runs = [run for vma in vmas for run in vma.runs]
        if any(owners[bisect_right(firsts, run.at) - 1] not in ancestors for run in runs if run.at < top):
            return True
        end = max((run.at + run.length for run in runs), default=top)
        if end > top:
            firsts.append(top)
            owners.append(id_)
            top = end
    return False


def with_heirlooms(own: Sequence[Vma], children: Sequence[Sequence[Vma]]) -> list[Vma]:
    """Return the mappings of a parent with the pages that two or more of its children share in place of its own.

    Equal to ``own`` where there are none. Of different pages at one address those come first that lie first in the
    image.
    """
    given = []
    for vma, *rows in zip(own, *(side_by_side(own, theirs) for theirs in children), strict=True):
        wanted = _wanted_twice(vma, [near for _, near in rows]) if not vma.shared else []
        given.append(msgspec.structs.replace(vma, runs=tuple(_overlaid(vma.runs, wanted))) if wanted else vma)
    return given


def _wanted_twice(vma: Vma, children: Sequence[Sequence[Vma]]) -> list[PageRun]:
    """Return runs that at least two children have in this mapping, and the parent has not; without overlaps.

    ``children``: of each, the mappings that lie in this one's range.
    """
    edges: list[tuple[int, int, int]] = []  # (distance of address and place, address, +1 begin or -1 end)
    for vmas in children:
        for theirs in vmas:
            span = inheritable(theirs, vma)
            if span is None:
                continue
            for run in missing_runs(theirs, [span], [vma]):
                start, end = max(run.start, span.start), min(run.end, span.end)
                if start < end:
                    edges += [(run.start - run.at, start, 1), (run.start - run.at, end, -1)]
    found: list[PageRun] = []
    depth, begin, last = 0, 0, None
    for distance, at, step in sorted(edges):
        assert distance == last or depth == 0
        last = distance
        if depth == 2 and step < 0:
            found += _free_parts(Span(begin, at), distance, [*found, *_guards(vma)])
        depth += step
        if depth == 2 and step > 0:
            begin = at
    return sorted(found)


def _guards(vma: Vma) -> list[PageRun]:
    return [PageRun(start, end - start, 0) for start, end in vma.guards]


def _free_parts(span: Span, distance: int, taken: Sequence[PageRun]) -> list[PageRun]:
    """Return the parts of a span that nothing has taken."""
    parts = []
    at = span.start
    for run in sorted(taken):
        if run.start >= span.end:
            break
        if run.end <= at:
            continue
        if run.start > at:
            parts.append(PageRun(at, run.start - at, at - distance))
        at = max(at, run.end)
    if at < span.end:
        parts.append(PageRun(at, span.end - at, at - distance))
    return parts


def _overlaid(below: Sequence[PageRun], above: Sequence[PageRun]) -> list[PageRun]:
    """Lay runs over others."""
    runs = list(above)
    for run in below:
        runs += _free_parts(Span(run.start, run.end), run.start - run.at, above)
    return sorted(runs)
