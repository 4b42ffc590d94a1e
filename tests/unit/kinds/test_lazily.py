"""What may come later, and what must be there at once."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.ids import ObjectId
from orchestrator.kinds.memory.lazily import Interval, Later, part, shared_places
from orchestrator.kinds.memory.record import AddressSpace, PageRun, Vma

PAGE = 4096
START = 0x10_0000
SIZE = 32


def vma(runs: list[PageRun], **more: object) -> Vma:
    settings: dict[str, object] = {"prot": 3, "shared": False, "backing": "anonymous"} | more
    return Vma(START, START + SIZE * PAGE, runs=tuple(runs), **settings)  # type: ignore[arg-type]


def space(number: int, places: list[tuple[int, int]]) -> AddressSpace:
    """An address space whose pages lie at some places of the image; (page of the image, number of pages)."""
    runs = [PageRun(START + i * 64 * PAGE, count * PAGE, at * PAGE) for i, (at, count) in enumerate(places)]
    return AddressSpace(ObjectId(number), [vma(runs)], *(0,) * 11, b"", ObjectId(0), 1)


def pages(runs: list[PageRun]) -> dict[int, int]:
    found = {run.start // PAGE + shift: run.at // PAGE + shift for run in runs for shift in range(run.length // PAGE)}
    assert len(found) == sum(run.length for run in runs) // PAGE
    return found


places = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 6)), max_size=4)


@given(st.tuples(places, places, places))
def test_what_several_have_is_found(of: tuple[list[tuple[int, int]], ...]) -> None:
    spaces = [space(number, own) for number, own in enumerate(of)]
    holders = Counter(page for own in of for page in {at + i for at, count in own for i in range(count)})
    twice = Counter(at + i for own in of for at, count in own for i in range(count))
    found = {page for low, high in shared_places(spaces) for page in range(low // PAGE, high // PAGE)}
    assert {page for page, count in holders.items() if count > 1} <= found
    assert found <= {page for page, count in twice.items() if count > 1}


def test_who_is_alone_shares_nothing() -> None:
    assert shared_places([space(0, [(0, 4)])]) == []


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 7)), max_size=4),
    st.sets(st.integers(0, SIZE - 1)),
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 5)), max_size=3),
)
def test_nothing_is_lost_between_the_two(
    shapes: list[tuple[int, int]], needed: set[int], shared: list[tuple[int, int]]
) -> None:
    runs, at = [], START
    for gap, count in shapes:
        runs.append(PageRun(at + gap * PAGE, count * PAGE, (at - START) // 2 // PAGE * PAGE))
        at = runs[-1].end
    joined: list[Interval] = []
    for low, count in sorted(shared):
        if not joined or low * PAGE > joined[-1].end:
            joined.append(Interval(low * PAGE, (low + count) * PAGE))
    later, now = part(runs, vma(runs), joined, sorted(START + page * PAGE for page in needed))
    assert pages(later) | pages(now) == pages(runs)
    assert not pages(later).keys() & pages(now).keys()
    must = {START // PAGE + page for page in needed}
    must |= {page for page, at in pages(runs).items() if any(low <= at * PAGE < high for low, high in joined)}
    assert pages(now).keys() == must & pages(runs).keys()


@pytest.mark.parametrize(
    "different",
    [
        {"prot": 1},
        {"shared": True},
        {"backing": "file"},
        {"flags": ("lo",)},
        {"flags": ("gd",)},
        {"flags": ("wf",)},
        {"flags": ("dc",)},
        {"huge_bits": 21},
        {"guards": ((START, START + PAGE),)},
    ],
    ids=str,
)
def test_what_is_special_comes_at_once(different: dict[str, object]) -> None:
    runs = [PageRun(START, SIZE * PAGE, 0)]
    later = Later([], [], PAGE)
    assert later.take(vma(runs, **different), runs) == runs
    assert later.areas == []


def test_what_is_little_comes_at_once() -> None:
    runs = [PageRun(START, 8 * PAGE, 0)]
    assert Later([], [], 9 * PAGE).take(vma(runs), runs) == runs
    enough = Later([], [], 8 * PAGE)
    assert enough.take(vma(runs), runs) == []
    assert [run for area in enough.areas for run in area.runs] == runs
