"""What the conformance runner reads in the suite's files and in what commands say."""

from __future__ import annotations

from pathlib import Path

from conformance import report
from conformance.description import parse_description
from conformance.outcome import Outcome, reason_of_error, reason_of_refusal, reason_of_verdict, without_paths


def test_a_test_without_a_description_runs_everywhere() -> None:
    described = parse_description("\n")
    assert described.flavours == {"h", "ns", "uns"}
    assert not described.alone
    assert not described.as_root


def test_a_description_with_comments_and_options() -> None:
    described = parse_description(
        "# why\n{'flavor': 'h', 'flags': 'suid excl crfail', 'feature': 'a b', 'timeout': '60',\n"
        " 'opts': '--tcp-established', 'dopts': '--ghost-limit 8M --no-ghost-fiemap',\n}\n"
    )
    assert described.flavours == {"h"}
    assert described.alone
    assert described.as_root
    assert described.may_be_refused
    assert described.features == ("a", "b")
    assert described.seconds == 60
    assert described.checkpoint_options() == ["--tcp", "keep", "--ghost-limit", str(8 << 20)]
    assert described.restore_options() == []
    assert described.asks_for_change is None


def test_what_is_told_at_the_restore_alone() -> None:
    described = parse_description("{'dopts': '--tcp-established', 'ropts': '--tcp-close'}")
    assert described.checkpoint_options() == ["--tcp", "keep"]
    assert described.restore_options() == ["--tcp", "close-all"]
    assert described.asks_for_change == "--tcp-close"


def test_a_computed_description_asks_for_something_special() -> None:
    assert "noauto" in parse_description("os.getenv('DEVICE') and {} or {'flags': 'suid'}").flags


def test_a_refusal_is_named_by_its_distinct_reasons() -> None:
    said = (
        "orch: this job holds state that orch cannot rebuild: 3 blockers\n"
        "  17 (pty00): fd 101 (/dev/ptmx): the master side cannot be rebuilt\n"
        "  17 (pty00): controlling terminal: terminal 136:1 is outside (--external 'tty[136:1]' does without)\n"
        "  18 (pty00): controlling terminal: terminal 136:2 is outside (--external 'tty[136:2]' does without)\n"
    )
    assert reason_of_refusal(said) == "the master side cannot be rebuilt; terminal …:… is outside"


def test_an_error_loses_numbers_and_paths() -> None:
    assert reason_of_error("restore: orch: process 12 cannot open /a/b.c: Denied\n  hint: do so\n") == (
        "restore: orch: process … cannot open FILE: Denied"
    )
    assert (
        reason_of_error("Traceback (most recent call last):\n  File\nKeyError: 7\n") == "orch itself fails: KeyError: …"
    )


def test_a_verdict_is_the_first_complaint() -> None:
    written = "10:00:01.002:    55: ERR: a.c:1: oh\n10:00:01.003:    55: FAIL: a.c:2: no (errno = 2 (x))\n"
    assert reason_of_verdict(written) == "FAIL: no (errno = 2 (x))"


def test_the_page_names_no_directories() -> None:
    place = Path("/somewhere/of/mine")
    outcome = Outcome("static/a", "failed", without_paths(f"{place}/a.test | gone", place))
    text = report.page([outcome, Outcome("static/b", "passed")])
    assert "| `a` | ./a.test \\| gone |" in text
    assert "somewhere" not in text
    assert "| passed | 1 |" in text
