"""Medians, ratios and how they are printed."""

from __future__ import annotations

import pytest

from benchmarks.figures import Figure, ratio, significant


def test_the_middle_of_repetitions_is_their_median_not_their_mean() -> None:
    assert Figure.of([10.0, 1000.0, 20.0]) == Figure(20.0, 10.0, 1000.0)
    assert Figure.of([1.0, 2.0, 3.0, 10.0]).middle == 2.5


def test_no_repetitions_make_no_figure() -> None:
    assert Figure.of_any([]) is None
    assert Figure.of_any([3.0]) == Figure(3.0, 3.0, 3.0)


def test_ratio_divides_ours_by_theirs() -> None:
    assert ratio(Figure.of([30.0]), Figure.of([20.0, 10.0, 60.0])) == 1.5


@pytest.mark.parametrize(
    ("ours", "theirs"), [(None, Figure.of([1.0])), (Figure.of([1.0]), None), (Figure.of([1.0]), Figure.of([0.0]))]
)
def test_ratio_is_missing_where_a_side_is(ours: Figure | None, theirs: Figure | None) -> None:
    assert ratio(ours, theirs) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.00"), (0.123, "0.12"), (9.44, "9.44"), (12.34, "12.3"), (99.94, "99.9"), (1234.5, "1,234")],
)
def test_numbers_keep_three_digits(value: float, text: str) -> None:
    assert significant(value) == text


def test_a_figure_prints_its_unit_once_and_its_spread() -> None:
    assert Figure.of([12_340.0, 11_000.0, 15_500.0]).text("us") == "12.3 ms (11.0 to 15.5)"
    assert Figure.of([3 << 20]).text("bytes") == "3.00 MiB"
    assert Figure.of([4121, 4122, 4125]).text("count") == "4,122 (4,121 to 4,125)"


def test_a_spread_too_small_to_see_is_left_out() -> None:
    assert Figure.of([12_340.0, 12_341.0, 12_342.0]).text("us") == "12.3 ms"
