"""Places in chains of images, and how they are moved when a delta is made whole."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.image.places import ONE_IMAGE, number_of, offset_in
from orchestrator.kinds.memory.known import KnownPages
from orchestrator.kinds.memory.record import AddressSpace, PageRun, Vma
from orchestrator.merge import moved_runs, plan_taking

PAGE = 4096

pages = st.integers(0, 30)
runs_of_memory = st.lists(st.tuples(pages, st.integers(1, 5), st.integers(0, 3), pages), max_size=8)


def space(runs: list[PageRun]) -> AddressSpace:
    vma = Vma(0, 1 << 20, 3, False, "anonymous", runs=tuple(runs))
    blank = {field.name: 0 for field in msgspec.structs.fields(AddressSpace) if field.required}
    return AddressSpace(**{**blank, "vmas": [vma], "auxv": b""})  # type: ignore[arg-type]


def disjoint(rows: list[tuple[int, int, int, int]]) -> list[PageRun]:
    """Make runs that follow each other in memory, each in some image of a chain."""
    found = []
    at = 0
    for gap, count, image, place in rows:
        at += gap
        found.append(PageRun(at * PAGE, count * PAGE, image * ONE_IMAGE + place * PAGE))
        at += count
    return found


def page_by_page(runs: list[PageRun]) -> dict[int, int]:
    return {run.start + shift: run.at + shift for run in runs for shift in range(0, run.length, PAGE)}


@given(st.lists(runs_of_memory, min_size=1, max_size=3))
def test_every_page_is_found_again_in_the_whole_image(spaces: list[list[tuple[int, int, int, int]]]) -> None:
    memories = [disjoint(rows) for rows in spaces]
    own = 40 * PAGE
    taken = plan_taking([space(runs) for runs in memories], own)
    place_of = {part.at + shift: part.place + shift for part in taken for shift in range(0, part.length, PAGE)}
    assert sum(part.length for part in taken) == len(place_of) * PAGE
    assert sorted(place_of) == list(range(own, own + len(place_of) * PAGE, PAGE))
    for runs in memories:
        moved = page_by_page(moved_runs(runs, taken))
        before = page_by_page(runs)
        assert moved.keys() == before.keys()
        for address, at in moved.items():
            assert number_of(at) == 0
            assert place_of.get(at, at) == before[address]


@given(runs_of_memory, pages, pages)
def test_what_is_known_within_a_range(rows: list[tuple[int, int, int, int]], first: int, count: int) -> None:
    runs = disjoint(rows)
    start, end = first * PAGE, (first + count) * PAGE
    found = KnownPages(runs).within(start, end)
    assert page_by_page(found) == {at: place for at, place in page_by_page(runs).items() if start <= at < end}
    assert found == sorted(found)


def test_a_place_is_an_image_and_an_offset() -> None:
    assert (number_of(12345), offset_in(12345)) == (0, 12345)
    assert (number_of(12345 + 3 * ONE_IMAGE), offset_in(12345 + 3 * ONE_IMAGE)) == (3, 12345)
