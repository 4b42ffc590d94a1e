"""Tables, promises and taking turns, with invented figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmarks import machine
from benchmarks.__main__ import PAGE, parse_arguments
from benchmarks.cases import MEASURES, Case, Samples, case_named
from benchmarks.engines import Engine
from benchmarks.figures import Figure
from benchmarks.processes import BenchmarkError
from benchmarks.report import Run, case_table, markdown, markdown_table, print_terminal, tables
from benchmarks.targets import judge
from benchmarks.trial import Outcome, Trials
from benchmarks.workload import Job


def outcome(case: str, orch: Samples, criu: Samples) -> Outcome:
    return Outcome(case_named(case), {"orch": [orch], "CRIU": [criu]})


def test_a_case_has_a_row_for_each_measure_taken_in_a_fixed_order() -> None:
    table = case_table(outcome("mem16", {"restore_us": 12_000.0, "frozen_us": 9_000.0}, {"frozen_us": 10_000.0}))
    assert table.heading == ("measure", "orch", "CRIU", "ratio")
    assert table.rows == (
        ("frozen, job goes on", "9.00 ms", "10.0 ms", "0.90"),
        ("restore: the work", "12.0 ms", "-", "-"),
    )


def test_a_failure_stands_below_its_table() -> None:
    failed = Outcome(case_named("mem16"), {"CRIU": [{"frozen_us": 1.0}]}, {"orch": "orch checkpoint ended with 20: no"})
    assert case_table(failed).notes == ("Repetitions: CRIU 1.", "orch failed: orch checkpoint ended with 20: no")


def test_measures_have_distinct_keys_and_titles() -> None:
    assert len({measure.key for measure in MEASURES}) == len({measure.title for measure in MEASURES}) == len(MEASURES)


def test_promises_against_criu_are_judged_by_ratio() -> None:
    verdicts = judge(
        [outcome("mem16", {"frozen_us": 12.0, "restore_us": 11.0}, {"frozen_us": 10.0, "restore_us": 10.0})], {}
    )
    assert [(v.promise, v.kept) for v in verdicts] == [("mem16: frozen, job goes on", False), ("mem16: restored", True)]


def test_promises_of_the_large_tree_are_judged_by_process() -> None:
    ours = {"frozen_us": 3_900_000.0, "restore_us": 1_600_000.0, "checkpoint_rss_bytes": 81.0 * (1 << 20)}
    verdicts = judge([outcome("tree1000", ours, {})], {"orch --help": Figure.of([59_000.0])})
    assert [(v.promise, v.kept) for v in verdicts] == [
        ("orch --help", True),
        ("tree1000: frozen", True),
        ("tree1000: restored", False),
        ("tree1000: peak memory of checkpoint", False),
    ]
    assert verdicts[1].text == "3.90 ms a process (limit 4.00)"


def test_how_long_a_job_stands_still_is_judged_beside_criu_and_absolutely() -> None:
    for name, frozen_us, kept in (("mem1024", 24_000.0, True), ("tree100x1", 61_000.0, False)):
        verdicts = judge([outcome(name, {"frozen_us": frozen_us}, {"frozen_us": 1e6})], {})
        assert [(v.promise, v.kept) for v in verdicts] == [
            (f"{name}: frozen, job goes on", True),
            (f"{name}: frozen, job goes on, absolute", kept),
        ]


def test_a_delta_is_judged_by_how_long_the_job_stands_still_and_by_its_image() -> None:
    found = outcome("mem1024", {"delta_frozen_us": 31_000.0, "delta_image_bytes": 16.5 * (1 << 20)}, {})
    assert [(v.promise, v.text, v.kept) for v in judge([found], {})] == [
        ("mem1024: frozen, delta behind 16 MiB of writes", "31.0 ms (limit 30.0)", False),
        ("mem1024: image size of that delta", "16.5 MiB (limit 20.0)", True),
    ]


def test_huge_pages_must_be_restored_in_less_time_and_still_be_huge() -> None:
    ours = {"restore_us": 45.0, "frozen_us": 9.0, "huge_before_bytes": 1000.0, "huge_after_bytes": 940.0}
    verdicts = judge([outcome("huge1024", ours, {"restore_us": 100.0, "frozen_us": 9.0})], {})
    assert [(v.promise, v.text, v.kept) for v in verdicts] == [
        ("huge1024: restored", "0.45 x CRIU (limit 0.40)", False),
        ("huge1024: huge pages, difference after the restore", "6.00 % (limit 5.00)", False),
    ]


def test_nothing_is_promised_of_what_was_not_measured() -> None:
    assert judge([Outcome(case_named("mem16")), outcome("tree100", {"frozen_us": 1.0}, {"frozen_us": 1.0})], {}) == []


def test_a_bar_in_a_cell_does_not_end_it() -> None:
    assert markdown_table(("a", "b"), [("x|y", "1")]) == "| a | b |\n| --- | ---: |\n| x\\|y | 1 |"


def test_the_page_holds_machine_cases_and_promises() -> None:
    run = Run(
        ["orch 1", "CRIU 4.2"],
        {"cores": "2"},
        [outcome("mem16", {"frozen_us": 9_000.0}, {"frozen_us": 10_000.0})],
        start_up={"orch --help": Figure.of([70_000.0])},
    )
    page = markdown(run)
    assert "| cores | 2 |\n| measured | orch 1, CRIU 4.2 |" in page
    assert "## mem16: one process, 16 MiB" in page
    assert "| frozen, job goes on | 9.00 ms | 10.0 ms | 0.90 |" in page
    assert "| orch --help | 70.0 ms (limit 60.0) | NOT KEPT |" in page
    assert [table.title.split(":")[0] for table in tables(run)] == ["mem16", "Start-up", "Promises"]


def test_the_terminal_shows_markup_in_messages_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_terminal(Run(["CRIU"], {}, [Outcome(case_named("mem16"), failures={"orch": "fd 7 [bold]"})]))
    assert "orch failed: fd 7 [bold]" in capsys.readouterr().out


def test_the_page_is_written_only_by_a_full_run() -> None:
    assert parse_arguments([]).output == PAGE
    assert parse_arguments(["--case", "mem16"]).output is None
    assert parse_arguments(["--without-bounds"]).output is None
    assert parse_arguments(["--case", "mem16", "--output", "x.md"]).output == Path("x.md")


@pytest.mark.parametrize("arguments", [["--without-orch"], ["--repeat", "0"], ["--case", "nothing"]])
def test_arguments_that_make_no_sense_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(arguments)
    assert "error:" in capsys.readouterr().err


@dataclass(slots=True)
class Scripted(Trials):
    """Trials whose every repetition is written down beforehand."""

    asked: list[str] = field(default_factory=list)
    fails_at: int | None = None

    def _trial(self, case: Case, engine: Engine, *, brief: bool = False) -> Samples:  # noqa: ARG002
        self.asked.append(engine.name)
        if len(self.asked) - 1 == self.fails_at:
            raise BenchmarkError("broken")
        return {"frozen_us": float(len(self.asked))}


@dataclass(frozen=True, slots=True)
class Named:
    """A system that is only a name."""

    name: str

    def version(self) -> str:
        return self.name

    def checkpoint(self, job: Job, directory: Path, *, kill: bool) -> Samples:
        raise NotImplementedError

    def restore(self, directory: Path) -> tuple[int, Samples]:
        raise NotImplementedError

    def restore_lazily(self, directory: Path) -> tuple[int, Samples] | None:
        raise NotImplementedError

    def show(self, directory: Path) -> Samples:
        raise NotImplementedError


@pytest.mark.parametrize("choice", [None, "always madvise [never]\n"])
def test_huge_pages_are_not_measured_where_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: str | None
) -> None:
    monkeypatch.setattr(machine, "_HUGE_PAGES", tmp_path / "enabled")
    if choice is not None:
        (tmp_path / "enabled").write_text(choice)
    trials = Scripted([], tmp_path, tmp_path)
    found = trials.measure(case_named("huge1024"), [Named("orch")], 1, lambda _: None)
    assert (trials.asked, judge([found], {})) == ([], [])
    assert found.notes == ["Not measured: this machine has no transparent huge pages."]


def test_the_memory_of_a_case_is_that_of_all_its_processes() -> None:
    assert [case_named(name).mib for name in ("mem16", "huge1024", "tree8x256", "tree100x1", "threads64")] == [
        16,
        1024,
        256,
        100,
        0,
    ]


def test_systems_take_turns_and_the_order_alternates() -> None:
    trials = Scripted([], Path(), Path())
    found = trials.measure(case_named("mem16"), [Named("orch"), Named("CRIU")], 3, lambda _: None)
    assert trials.asked == ["orch", "CRIU", "CRIU", "orch", "orch", "CRIU"]
    assert found.values("orch", "frozen_us") == [1.0, 4.0, 5.0]
    assert found.values("CRIU", "gap_us") == []


def test_a_system_that_fails_is_named_and_not_tried_again() -> None:
    trials = Scripted([], Path(), Path(), fails_at=2)
    found = trials.measure(case_named("mem16"), [Named("orch"), Named("CRIU")], 3, lambda _: None)
    assert trials.asked == ["orch", "CRIU", "CRIU", "orch", "orch"]
    assert found.failures == {"CRIU": "broken"}
    assert found.values("CRIU", "frozen_us") == [2.0]
