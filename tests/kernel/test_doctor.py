"""orch doctor where everything is there, and where little is."""

from __future__ import annotations

import json
import os

import pytest

from harness.job import Job
from harness.unprivileged import orch_as_nobody
from orchestrator import errors
from orchestrator.doctor.probe import Probe, examine


def test_this_machine_has_what_every_checkpoint_needs(job: Job) -> None:
    findings = json.loads(job.orch.ok("doctor", "--json").output)
    assert len({finding["name"] for finding in findings}) == len(findings) > 40
    assert [finding["name"] for finding in findings if finding["essential"] and not finding["works"]] == []
    for finding in findings:
        assert finding["lost"]
        assert bool(finding["why"]) != finding["works"]


def test_one_line_each_with_what_is_lost(job: Job) -> None:
    lines = job.orch.ok("doctor").output.splitlines()
    for line in lines:
        assert line.startswith(("ok  ", "no  "))
        if line.startswith("no  "):
            assert ": " in line


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to have something to give up")
def test_without_privileges_it_says_so_and_fails() -> None:
    process = orch_as_nobody(
        [f"orchestrator.doctor.{name}" for name in ("memory", "processes", "surroundings")], "doctor"
    )
    assert process.returncode == errors.NotPermitted.exit_code, process.stderr
    assert "no  clone3 set_tid" in process.stdout
    assert "orch cannot work here: it needs CAP_SYS_ADMIN" in process.stdout


def test_a_probe_that_finds_nothing_to_try_is_a_no() -> None:
    def attempt() -> None:
        raise LookupError("not mounted")

    finding = examine(Probe("thing", attempt, "something"))
    assert (finding.works, finding.why) == (False, "not mounted")
