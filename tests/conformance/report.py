"""The outcomes for people: a line each, a summary by reason, and the page of the documentation."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from conformance.outcome import MEANINGS, STATUSES, Outcome, Status

_INTRODUCTION = """\
# Conformance

Written by `make conformance ZDTM=PATH`; run it again rather than edit it. PATH is a checkout of CRIU, whose suite zdtm
checks one kind of state a program. Nothing of the suite is part of this project: the runner
(`tests/conformance/`) builds it in the checkout and drives it from outside.

Each test runs as the suite has it run on the host (its flavour `h`). It sets its state up and waits. Then the job's
cgroup is saved with `orch checkpoint --kill` and brought back with `orch restore`, in a PID namespace of its own. The
test is told to check itself, and what it writes counts. Processes that help it from outside are not saved, as they are
not by CRIU. Two tests run at a time, so each has network and IPC namespaces that it shares with its orch alone. Hooks
that read CRIU's own images are left out. What a test asks of CRIU by an option is asked of orch by its own, where there
is one (`--tcp keep` for `--tcp-established`).
"""


def print_outcome(outcome: Outcome, *, verbose: bool) -> None:
    """Print one line as soon as a test is over."""
    print(f"{outcome.status:<8} {outcome.test:<44} {outcome.reason}", flush=True)
    if verbose and outcome.status in ("failed", "refused", "broken"):
        for line in outcome.detail.splitlines():
            print(f"         | {line}", flush=True)


def _by_reason(outcomes: Sequence[Outcome], status: Status) -> list[tuple[str, list[Outcome]]]:
    """Group outcomes by their reason, the commonest first."""
    groups: defaultdict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.status == status:
            groups[outcome.reason].append(outcome)
    return sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))


def summary(outcomes: Sequence[Outcome]) -> str:
    """Count the outcomes, with the reasons of those that did not pass."""
    counts = Counter(outcome.status for outcome in outcomes)
    lines = []
    for status in STATUSES:
        lines.append(f"\n{counts[status]:4} {status}: {MEANINGS[status]}")
        if status != "passed":
            lines += [f"     {len(group):4} {reason}" for reason, group in _by_reason(outcomes, status)]
    lines.append(f"\n{len(outcomes):4} in all")
    return "\n".join(lines)


def page(outcomes: Sequence[Outcome]) -> str:
    """Write the page of the documentation."""
    counts = Counter(outcome.status for outcome in outcomes)
    lines = [_INTRODUCTION, "| outcome | tests | |", "|---|---:|---|"]
    lines += [f"| {status} | {counts[status]} | {MEANINGS[status]} |" for status in STATUSES]
    lines.append(f"| in all | {len(outcomes)} | |")
    for status in STATUSES[1:-1]:
        lines += ["", f"## {status.capitalize()}", "", "| test | reason |", "|---|---|"]
        lines += [f"| {_name(outcome)} | {_cell(outcome.reason)} |" for outcome in outcomes if outcome.status == status]
    lines += ["", "## Not applicable", "", "| reason | tests |", "|---|---|"]
    for reason, group in _by_reason(outcomes, "not applicable"):
        lines.append(f"| {_cell(reason)} | {' '.join(_name(outcome) for outcome in group)} |")
    return "\n".join(lines) + "\n"


def _name(outcome: Outcome) -> str:
    return f"`{outcome.test.removeprefix('static/')}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
