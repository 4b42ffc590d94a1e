"""Which pages are stored once, and who is given pages that are not its own while its children are born."""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.ids import HostPid, ObjectId
from orchestrator.image.extents import PageLayout
from orchestrator.kinds.memory.capture import CapturedMemory, Pages, Placer
from orchestrator.kinds.memory.heirlooms import plan_heirlooms, with_heirlooms
from orchestrator.kinds.memory.record import PageRun, Vma
from orchestrator.kinds.memory.sharing import equal_parts, shared_parts

PAGE = 4096
PRESENT, ONCE = 1 << 63, 1 << 56


def frames(*numbers: int) -> array[int]:
    """Return pagemap entries: a frame that others map as well, one that nobody else does (negative), or none (0)."""
    return array(
        "Q", [PRESENT | number if number > 0 else PRESENT | ONCE | -number if number else 0 for number in numbers]
    )


def test_shared_parts_are_what_somebody_else_maps_too() -> None:
    assert list(shared_parts(frames(1, 2, -3, 0, 4, -5, 6))) == [(0, 2), (4, 5), (6, 7)]
    assert list(shared_parts(frames())) == []


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2))))
def test_equal_parts_cover_what_is_equal(pairs: list[tuple[int, int]]) -> None:
    mine, theirs = array("Q", [one for one, _ in pairs]), array("Q", [other for _, other in pairs])
    covered = [page for first, last in equal_parts(mine, theirs) for page in range(first, last)]
    assert covered == [page for page, (one, other) in enumerate(pairs) if one == other]


@dataclass
class Machine:
    """Processes whose pages are what the test says."""

    monkeypatch: pytest.MonkeyPatch
    layout: PageLayout = field(default_factory=lambda: PageLayout(PAGE))
    placer: Placer = field(init=False)

    def __post_init__(self) -> None:
        self.monkeypatch.setattr("orchestrator.linux.pagemap.shows_frames", lambda: True)
        self.placer = Placer(self.layout, alone=False)

    def process(self, parent: CapturedMemory | None, *numbers: int) -> tuple[CapturedMemory, list[int]]:
        """Place the pages of one at address 0; return it with the places, page by page."""
        memory = CapturedMemory(parent, has_children=True)
        with Pages(HostPid(os.getpid())) as pages:
            self.monkeypatch.setattr(
                pages, "entries", lambda start, end: frames(*numbers)[start // PAGE : end // PAGE], raising=False
            )
            runs = self.placer.place(memory, pages, 0, len(numbers) * PAGE, readable=True)
        assert [page for run in runs for page in range(run.start, run.end, PAGE)] == [
            *range(0, len(numbers) * PAGE, PAGE)
        ]
        return memory, [at for run in runs for at in range(run.at // PAGE, (run.at + run.length) // PAGE)]


def test_a_page_has_one_place_however_it_came_to_be_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    root, places = machine.process(None, 10, 11, -12, 13)
    assert places == [0, 1, 2, 3]
    child, places = machine.process(root, 10, 21, -22, 13)
    assert places == [0, 4, 5, 3]
    _, places = machine.process(root, 10, 21, 11, -5)  # 21 is its sibling's, 11 not at its address
    assert places == [0, 4, 6, 7]
    _, places = machine.process(child, -9, 11, 40, 13)  # 11: its grandparent's, not its parent's
    assert places == [8, 1, 9, 3]


@given(st.lists(st.lists(st.integers(-3, 3), min_size=6, max_size=6), min_size=1, max_size=6))
def test_equal_frames_at_one_address_never_take_two_places_nor_others_one(rows: list[list[int]]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        machine = Machine(monkeypatch)
        parent: CapturedMemory | None = None
        place_of: dict[int, int] = {}
        taken: set[int] = set()
        for number, row in enumerate(rows):
            # a frame is at one address only; one that is nobody else's is new each time
            row = [
                (page + 1) * 10 + value if value > 0 else -(1000 * number + page + 1) for page, value in enumerate(row)
            ]
            memory, places = machine.process(parent, *row)
            parent = parent or memory
            for frame, place in zip(row, places, strict=True):
                if frame in place_of:
                    assert place_of[frame] == place
                else:
                    assert place not in taken
                place_of[frame] = place
                taken.add(place)


def vma(*runs: tuple[int, int, int], guards: tuple[tuple[int, int], ...] = ()) -> Vma:
    return Vma(
        0, 16 * PAGE, 3, False, "anonymous",
        runs=tuple(PageRun(start * PAGE, length * PAGE, at * PAGE) for start, length, at in runs),
        guards=tuple((start * PAGE, end * PAGE) for start, end in guards),
    )  # fmt: skip


def test_a_parent_is_given_what_two_children_share() -> None:
    own = vma((0, 8, 0))
    one, other = vma((0, 2, 0), (2, 4, 22)), vma((0, 1, 0), (1, 1, 40), (3, 5, 23))
    assert with_heirlooms([own], [[one], [other]]) == [vma((0, 3, 0), (3, 3, 23), (6, 2, 6))]
    assert with_heirlooms([own], [[one], [vma()]]) == [own]
    guarded = vma((0, 3, 0), guards=((4, 5),))
    assert with_heirlooms([guarded], [[one], [other]]) == [vma((0, 3, 0), (3, 1, 23), (5, 1, 25), guards=((4, 5),))]


def test_heirlooms_are_handed_down_from_the_common_ancestor() -> None:
    spaces = {
        ObjectId(0): [vma((0, 2, 0))],
        ObjectId(1): [vma((0, 2, 2))],
        ObjectId(2): [vma((0, 1, 2), (1, 1, 4))],
        ObjectId(3): [vma((0, 1, 5), (1, 1, 4))],
    }
    parents = {ObjectId(1): ObjectId(0), ObjectId(2): ObjectId(0), ObjectId(3): ObjectId(2)}
    assert plan_heirlooms(spaces, parents) == {ObjectId(0): [vma((0, 1, 2), (1, 1, 1))]}
    inherited = {**spaces, ObjectId(1): [vma((0, 2, 0))], ObjectId(2): [vma((0, 1, 0), (1, 1, 4))]}
    assert plan_heirlooms(inherited, parents) == {}
