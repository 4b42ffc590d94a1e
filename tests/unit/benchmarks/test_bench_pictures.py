"""Pictures of invented figures."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from benchmarks.cases import CASES, SCALINGS, case_named
from benchmarks.figures import Figure
from benchmarks.pictures import BARS, draw, short
from benchmarks.plots import Group, Scale, bars
from benchmarks.report import Run, markdown, pictures, scaling_table
from benchmarks.targets import judge
from benchmarks.trial import Outcome

SVG = "{http://www.w3.org/2000/svg}"


def parsed(picture: str) -> ET.Element:
    return ET.fromstring(picture)


def texts(picture: str) -> list[str]:
    return [element.text or "" for element in parsed(picture).iter(f"{SVG}text")]


def outcomes() -> list[Outcome]:
    return [
        Outcome(case, {"orch": [{"frozen_us": 10_000.0, "restore_us": 5e4}], "CRIU": [{"frozen_us": 3e6}]})
        for case in CASES[:2]
    ]


def test_a_scale_holds_its_values_between_powers_of_ten() -> None:
    scale = Scale.over([15.0, 3000.0])
    assert [*scale.decades()] == [10.0, 100.0, 1000.0, 10000.0]
    assert scale.part(10.0) == 0
    assert scale.part(10000.0) == 1
    assert abs(scale.part(1000.0) - 2 / 3) < 1e-9
    assert Scale.over([100.0]).most == 1000.0


def test_bars_say_their_values_and_what_is_missing() -> None:
    found = texts(bars("Of <things>", ("orch", "CRIU"), [Group("one", [Figure(2.0, 1.0, 3.0), None])], "{} ms".format))
    assert "Of <things>" in found
    assert {"orch", "CRIU", "one", "2.0 ms", "no figure"} <= set(found)


def test_a_run_has_a_picture_for_each_measure_that_was_taken() -> None:
    drawn = draw(outcomes(), [])
    assert [*drawn] == ["frozen", "restore"]
    assert "10 ms" in texts(drawn["frozen"])
    assert "3 s" in texts(drawn["frozen"])
    assert {*drawn} <= {*BARS}


def test_what_grows_is_drawn_as_curves() -> None:
    for scaling in SCALINGS:
        found = [
            Outcome(case, {"orch": [{"frozen_us": 10.0 * case.size + 1, "restore_us": 5.0}], "CRIU": []})
            for case in scaling.cases
        ]
        picture = draw([], [(scaling, found)])[f"over-{scaling.name}"]
        assert len([*parsed(picture).iter(f"{SVG}circle")]) == 2 * len(scaling.cases)
        assert "orch frozen" in texts(picture)
        assert "CRIU frozen" not in texts(picture)
        table = scaling_table(scaling, found)
        assert table.heading[1:] == ("frozen, orch", "frozen, CRIU", "restored, orch", "restored, CRIU")
        assert len(table.rows) == len(scaling.cases)


def test_the_page_shows_its_pictures() -> None:
    run = Run(["orch 1"], {}, outcomes())
    page = markdown(run, "benchmarks")
    for name in pictures(run):
        assert f"](benchmarks/{name}.svg)" in page
    assert "svg" not in markdown(run)


def test_a_picture_can_be_read_on_dark_pages_too() -> None:
    assert "prefers-color-scheme: dark" in draw(outcomes(), [])["frozen"]


def test_values_have_the_unit_that_suits_them() -> None:
    assert [short(value, "us") for value in (5, 1500, 2e6, 1e6)] == ["5 us", "1.50 ms", "2 s", "1 s"]
    assert [short(value, "bytes") for value in (512, 1 << 20, 3 << 30)] == ["512 B", "1 MiB", "3 GiB"]


def test_shared_memory_must_be_shared_again() -> None:
    ours = {"image_bytes": 310.0 * (1 << 20), "pss_before_bytes": 100.0, "pss_after_bytes": 104.0}
    verdicts = judge([Outcome(case_named("tree8x256"), {"orch": [ours]})], {})
    assert [(v.promise, v.kept) for v in verdicts] == [
        ("tree8x256: image size", False),
        ("tree8x256: sum of Pss, difference after the restore", True),
    ]
