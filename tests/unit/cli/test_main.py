"""The command line before any work is done: help, errors, and what is imported for them."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from orchestrator import errors
from orchestrator.cli import __main__ as cli
from orchestrator.cli.arguments import comma_list, seconds, signal_number
from orchestrator.cli.text import printable, size


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    printed = capsys.readouterr().out
    for verb, line in cli.VERBS.items():
        assert f"{verb} " in printed
        assert line in printed


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([verb, "--help"])
    assert caught.value.code == 0
    assert f"usage: orch {verb}" in capsys.readouterr().out


def test_no_verb_prints_help_to_stderr_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == errors.UsageError.exit_code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "usage: orch" in captured.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fly"], "there is no verb 'fly'"),
        (["ps", "--nonsense"], "ps: unrecognized arguments: --nonsense"),
        (["checkpoint"], "--cgroup"),
        (["checkpoint", "--cgroup", "a", "--pid", "1"], "not allowed with"),
        (["checkpoint", "--cgroup", "a", "--kill", "--stop"], "not allowed with"),
        (["checkpoint", "--cgroup", "a", "--timeout", "-3"], "--timeout"),
        (["kill", "-s", "NOSUCH", "job"], "--signal"),
        (["restore"], "image"),
        (["show", "--only", "dreams", "x.ckpt"], "'dreams'"),
    ],
)
def test_a_wrong_command_line_is_one_clear_error(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == errors.UsageError.exit_code
    first, *rest = capsys.readouterr().err.splitlines()
    assert first.startswith("orch: ")
    assert words in first
    assert rest[0].startswith("hint: ")


def _verb_that_raises(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def main(_arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr(import_module("orchestrator.cli.ps"), "main", main)


def test_an_error_becomes_its_message_hint_and_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _verb_that_raises(monkeypatch, errors.FreezeTimeout("7 (cat) does not stop", hint="wait"))
    assert cli.main(["ps"]) == errors.FreezeTimeout.exit_code
    assert capsys.readouterr().err == "orch: 7 (cat) does not stop\nhint: wait\n"


def test_an_error_from_a_nursery_is_that_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inner = ExceptionGroup("nursery", [ExceptionGroup("nursery", [errors.PidTaken("4 is taken")])])
    _verb_that_raises(monkeypatch, inner)
    assert cli.main(["ps"]) == errors.PidTaken.exit_code
    assert "4 is taken" in capsys.readouterr().err


def test_a_defect_is_told_as_one_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = OSError(5, "Input/output error")
    error.add_note("read /proc/self/maps")
    _verb_that_raises(monkeypatch, error)
    assert cli.main(["ps"]) == 1
    printed = capsys.readouterr().err
    assert "internal error: OSError" in printed
    assert "read /proc/self/maps" in printed
    assert "Traceback" not in printed


def test_debug_lets_the_error_through(monkeypatch: pytest.MonkeyPatch) -> None:
    _verb_that_raises(monkeypatch, errors.PidTaken("4 is taken"))
    with pytest.raises(errors.PidTaken):
        cli.main(["--debug", "ps"])


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _verb_that_raises(monkeypatch, KeyboardInterrupt())
    assert cli.main(["ps"]) == 130
    assert capsys.readouterr().err == ""


HEAVY = {"trio", "pyroute2", "rich", "psutil", "prctl", "hypothesis"}


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (["--help"], HEAVY | {"argparse", "msgspec", "ctypes", "dataclasses", "orchestrator.errors"}),
        (["show", "/no/such/image"], HEAVY),
        (["checkpoint", "--cgroup", "no-such-job"], HEAVY - {"prctl"}),
        (["ps"], HEAVY - {"psutil"}),
    ],
    ids=["help", "show", "checkpoint", "ps"],
)
def test_a_verb_imports_only_what_it_needs(arguments: list[str], unwanted: set[str]) -> None:
    source = "import sys\nfrom orchestrator.cli.__main__ import main\ncode = main(sys.argv[1:])\n"
    source += "print('modules:', *sys.modules)\n"
    finished = subprocess.run(
        [sys.executable, "-c", source, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    (line,) = [line for line in finished.stdout.splitlines() if line.startswith("modules:")]
    assert not unwanted & set(line.split())


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (5 << 20, "5.0 MiB"),
        (3 << 29, "1.5 GiB"),
        (1 << 50, "1048576.0 GiB"),
    ],
)
def test_sizes_are_written_for_people(number: int, text: str) -> None:
    assert size(number) == text


def test_what_a_terminal_would_obey_is_spelled_out() -> None:
    assert printable("plain é\n") == "plain é\\n"
    assert printable("\x1b[2J\udcff\x9b") == "\\x1b[2J\\xdcff\\x9b"


def test_values_of_options() -> None:
    assert comma_list("pid,,net,") == ["pid", "net"]
    assert [signal_number(text) for text in ("TERM", "sigterm", "15")] == [15, 15, 15]
    assert seconds("2.5") == 2.5


@pytest.mark.parametrize("wrong", ["0", "-1", "nan", "1e9", "soon"])
def test_a_timeout_that_is_none(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"^$|could not convert"):
        seconds(wrong)


@pytest.mark.parametrize("wrong", ["NOSUCH", "999", "-9", ""])
def test_a_signal_that_is_none(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"^$|not a valid"):
        signal_number(wrong)
