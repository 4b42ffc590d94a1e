"""What came of a test, and the reason in words that group alike cases together."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Status = Literal["passed", "failed", "refused", "broken", "not applicable"]
STATUSES: tuple[Status, ...] = ("passed", "failed", "refused", "broken", "not applicable")
MEANINGS: dict[Status, str] = {
    "passed": "saved, killed, restored, and content with what it found",
    "failed": "saved, but not restored, or not content",
    "refused": "orch said no, and the test went on unharmed",
    "broken": "does not pass here even if nothing is done to it",
    "not applicable": "not for the host, by the suite's own rules",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One test's result."""

    test: str
    status: Status
    reason: str = ""
    """For people and for groups: without numbers and paths that differ from run to run."""
    detail: str = ""
    """As it was said."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        return cls(**json.loads(text))


_BLOCKER = re.compile(r"^ +\d+ \(.*?\): (?P<object>.*?): (?P<reason>.*?)(?: \([^()]*(?:\([^()]*\)[^()]*)*\))?$")
_STAMP = re.compile(r"^\d\d:\d\d:\d\d\.\d+: +\d+: ")
_PLACE = re.compile(r"\b[\w.+-]+\.c:\d+: ")
_VARYING = (
    (re.compile(r"0x[0-9a-f]+(-0x[0-9a-f]+)?"), "…"),
    (re.compile(r"\b[0-9a-f]{8,}-[0-9a-f]{8,}\b"), "…"),
    (re.compile(r"\d+"), "…"),
    (re.compile(r"(?<![\w.])\.?/[^\s,;:()]+"), "FILE"),
)


def general(text: str) -> str:
    """Leave out of a message what differs from one run to the next."""
    for pattern, instead in _VARYING:
        text = pattern.sub(instead, text)
    return " ".join(text.split())


def reason_of_refusal(text: str) -> str:
    """Name the distinct blockers of a refusal, or what else it said."""
    found: dict[str, None] = {}
    for line in text.splitlines():
        if match := _BLOCKER.match(line):
            found.setdefault(general(match["reason"]))
    return "; ".join(found) or reason_of_error(text)


def reason_of_error(text: str) -> str:
    """Take the message out of what a command printed: the first line that is no traceback."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("hint:")]
    if "Traceback (most recent call last):" in lines:
        return general(f"orch itself fails: {lines[-1]}")
    return general(lines[0].removeprefix("orch: ")) if lines else "no message"


def reason_of_verdict(output: str) -> str:
    """Take the first complaint out of what a test wrote."""
    lines = [_PLACE.sub("", _STAMP.sub("", line)) for line in output.splitlines()]
    for mark in ("FAIL", "ERR"):
        for line in lines:
            if line.startswith(mark):
                return line
    return lines[-1] if lines else "it wrote nothing"


def without_paths(text: str, *directories: Path) -> str:
    """Write paths below some directories as relative ones."""
    for directory in directories:
        text = text.replace(f"{directory}/", "./").replace(str(directory), ".")
    return text
