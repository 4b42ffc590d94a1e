"""What is missing, against a dictionary of pages."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.paging.missing import MissingPages, Run

PAGE = 4096
SPACE = 40

Pages = dict[int, int]
"""Page -> its place in the image, both as numbers."""


def runs_of(pages: Pages) -> list[Run]:
    return [Run(page * PAGE, (page + 1) * PAGE, place * PAGE) for page, place in sorted(pages.items())]


def pages_of(missing: MissingPages) -> Pages:
    found = {}
    for run in missing.runs():
        for shift in range(0, run.end - run.start, PAGE):
            assert (run.start + shift) // PAGE not in found
            found[(run.start + shift) // PAGE] = (run.at + shift) // PAGE
    assert missing.length == len(found) * PAGE
    assert bool(missing) is bool(found)
    return found


def joined(pages: Pages) -> list[Run]:
    """Runs as an image has them: as long as they can be."""
    runs: list[Run] = []
    for run in runs_of(pages):
        if runs and runs[-1].end == run.start and runs[-1].at + runs[-1].end - runs[-1].start == run.at:
            runs[-1] = runs[-1]._replace(end=run.end)
        else:
            runs.append(run)
    return runs


numbers = st.integers(0, SPACE - 1)
spans = st.tuples(numbers, numbers).map(lambda ends: (min(ends), max(ends) + 1))
calls = st.lists(st.one_of(st.tuples(st.just("remove"), spans), st.tuples(st.just("move"), spans, numbers)), max_size=8)


@given(st.sets(numbers), st.integers(0, 5), calls, numbers)
def test_all_that_is_done_to_it(pages: set[int], shift: int, calls: list[tuple[object, ...]], looked_for: int) -> None:
    model: Pages = {page: page + 100 * shift for page in pages}
    missing = MissingPages(joined(model))
    twin = missing.copy()
    for call in calls:
        match call:
            case ("remove", (int(start), int(end))):
                gone = missing.remove(start * PAGE, end * PAGE)
                inside = {page: model.pop(page) for page in range(start, end) if page in model}
                assert pages_of(MissingPages(gone)) == inside
            case ("move", (int(start), int(end)), int(to)) if to >= end or to + end - start <= start:
                moved = {page - start + to: model.pop(page) for page in range(start, end) if page in model}
                model = {page: at for page, at in model.items() if not to <= page < to + end - start} | moved
                missing.move(start * PAGE, to * PAGE, (end - start) * PAGE)
        assert pages_of(missing) == model
        assert missing.runs() == sorted(missing.runs())
    run = missing.at(looked_for * PAGE)
    assert (run is not None) is (looked_for in model)
    following = missing.next(looked_for * PAGE)
    if following is None:
        assert not model
    else:
        later = [page for page in model if page >= looked_for]
        assert following.start // PAGE == min(later or model)
    assert pages_of(MissingPages(missing.within(looked_for * PAGE, SPACE * PAGE))) == {
        page: at for page, at in model.items() if page >= looked_for and page < SPACE
    }
    assert pages_of(twin) == {page: page + 100 * shift for page in pages}
