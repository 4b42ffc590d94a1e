"""Hold the figures against what orch promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.figures import Figure, ratio, significant
from benchmarks.trial import Outcome

START_UP_LIMIT_MS = {"orch --help": 60.0}
SHOW_LIMIT_MS = 120.0
RATIO_LIMIT = 1.1
HUGE_RATIO_LIMIT = 0.4
DIFFERENCE_LIMIT = 5.0
FROZEN_LIMITS_MS = {"mem1024": 25.0, "tree100x1": 60.0}
DELTA_LIMIT_MS = 30.0
DELTA_LIMIT_MIB = 20.0
LAZY_LIMIT_MS = 15.0
LAZY_LIMIT_MIB = 150.0
TIMES = {
    "frozen_us": "frozen, job goes on",
    "kill_frozen_us": "frozen, job ends",
    "restore_us": "restored",
}
"""What is compared with CRIU, and how the promise calls it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One promise, and what was measured."""

    promise: str
    measured: float
    limit: float
    unit: str

    @property
    def kept(self) -> bool:
        """Whether the measured value is within the limit."""
        return self.measured <= self.limit

    @property
    def text(self) -> str:
        """Print the value with its limit."""
        return f"{significant(self.measured)} {self.unit} (limit {significant(self.limit)})"


def judge(outcomes: Sequence[Outcome], start_up: dict[str, Figure]) -> list[Verdict]:
    """Judge every promise for which there are figures."""
    verdicts = [
        Verdict(command, start_up[command].middle / 1000, limit, "ms")
        for command, limit in START_UP_LIMIT_MS.items()
        if command in start_up
    ]
    for outcome in outcomes:
        if outcome.case.kind in ("mem", "filled"):
            verdicts += judge_against_criu(outcome, TIMES)
        if outcome.case.name in FROZEN_LIMITS_MS:
            title = f"{outcome.case.name}: frozen, job goes on, absolute"
            limit = FROZEN_LIMITS_MS[outcome.case.name]
            verdicts += judge_median(outcome, "frozen_us", title, 1000, limit, "ms")
        if outcome.case.delta:
            verdicts += judge_delta(outcome)
        if outcome.case.kind == "huge":
            verdicts += judge_against_criu(outcome, {"restore_us": "restored"}, HUGE_RATIO_LIMIT)
            verdicts += judge_difference(outcome, "huge", "huge pages")
        if outcome.case.name in ("mem1024", "mem10240"):
            name = outcome.case.name
            verdicts += judge_median(outcome, "lazy_us", f"{name}: restored on demand", 1000, LAZY_LIMIT_MS, "ms")
            title = f"{name}: peak memory of the pager of restore --lazy"
            verdicts += judge_median(outcome, "lazy_rss_bytes", title, 1 << 20, LAZY_LIMIT_MIB, "MiB")
        if outcome.case.name == "mem16":
            verdicts += judge_median(outcome, "show_wall_us", "orch show", 1000, SHOW_LIMIT_MS, "ms")
        if outcome.case.name == "tree1000":
            scale = 1000 * outcome.case.tasks
            verdicts += judge_median(outcome, "frozen_us", "tree1000: frozen", scale, 4.0, "ms a process")
            verdicts += judge_median(outcome, "restore_us", "tree1000: restored", scale, 1.5, "ms a process")
            for verb in ("checkpoint", "restore"):
                title = f"tree1000: peak memory of {verb}"
                verdicts += judge_median(outcome, f"{verb}_rss_bytes", title, 1 << 20, 80.0, "MiB")
        if outcome.case.name == "tree8x256":
            verdicts += judge_median(outcome, "image_bytes", "tree8x256: image size", 1 << 20, 300.0, "MiB")
            verdicts += judge_difference(outcome, "pss", "sum of Pss")
        if outcome.case.name == "files100000":
            verdicts += judge_median(outcome, "kill_frozen_us", "files100000: frozen, job ends", 1e6, 5.0, "s")
            verdicts += judge_median(outcome, "restore_us", "files100000: restored", 1e6, 5.0, "s")
    return verdicts


def judge_against_criu(outcome: Outcome, titles: Mapping[str, str], limit: float = RATIO_LIMIT) -> list[Verdict]:
    """Compare the times that both systems report of themselves; ``titles`` says which, by their keys."""
    verdicts = []
    for key, title in titles.items():
        found = ratio(Figure.of_any(outcome.values("orch", key)), Figure.of_any(outcome.values("CRIU", key)))
        if found is not None:
            verdicts.append(Verdict(f"{outcome.case.name}: {title}", found, limit, "x CRIU"))
    return verdicts


def judge_difference(outcome: Outcome, what: str, title: str) -> list[Verdict]:
    """Judge whether memory is shared, or in huge pages, after the restore as it was before the checkpoint."""
    before, after = (Figure.of_any(outcome.values("orch", f"{what}_{when}_bytes")) for when in ("before", "after"))
    found = ratio(after, before)
    title = f"{outcome.case.name}: {title}, difference after the restore"
    return [] if found is None else [Verdict(title, 100 * abs(found - 1), DIFFERENCE_LIMIT, "%")]


def judge_delta(outcome: Outcome) -> list[Verdict]:
    """Judge a delta behind writes: how long the job stands still, and the image."""
    title = f"{outcome.case.name}: frozen, delta behind 16 MiB of writes"
    image = f"{outcome.case.name}: image size of that delta"
    return [
        *judge_median(outcome, "delta_frozen_us", title, 1000, DELTA_LIMIT_MS, "ms"),
        *judge_median(outcome, "delta_image_bytes", image, 1 << 20, DELTA_LIMIT_MIB, "MiB"),
    ]


def judge_median(outcome: Outcome, key: str, title: str, scale: float, limit: float, unit: str) -> list[Verdict]:
    """Judge orch's own median, divided by ``scale``; nothing if it was not measured."""
    figure = Figure.of_any(outcome.values("orch", key))
    return [] if figure is None else [Verdict(title, figure.middle / scale, limit, unit)]
