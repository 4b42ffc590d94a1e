"""Checkpoints in rounds: most of the memory is written while the job runs."""

from __future__ import annotations

import json
import os
import select
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from harness.deadline import Deadline
from harness.job import Job
from harness.program import Program, Run
from orchestrator import checkpointing, precopy
from orchestrator.capture.checkpoint import Statistics
from orchestrator.checkpointing import CheckpointOptions
from orchestrator.errors import CaptureFailed
from orchestrator.target import Target

LARGE = [Program("anon_private"), Program("cow_contents"), Program("snapshot_moment")]


def stats(job: Job, *options: str) -> dict[str, Any]:
    said = job.orch.ok("checkpoint", "--cgroup", job.name, "-o", str(job.image), "--stats", "-", *options)
    found: dict[str, Any] = json.loads(said.output)
    return found


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHTEST_MIB", "64")


@pytest.mark.parametrize("program", LARGE, ids=lambda program: program.id)
@pytest.mark.usefixtures("large")
def test_the_job_comes_back_from_one_whole_image(run: Run) -> None:
    run.start()
    took = stats(run.job, "--precopy", "3", "--kill")
    run.job.wait_until_over()
    assert 1 <= took["rounds"] <= 3
    assert took["delta_to"] == ""
    assert os.listdir(run.job.image.parent) == [run.job.image.name]
    assert took["image_bytes"] == run.job.image.stat().st_size
    described = json.loads(run.job.orch.ok("show", "--json", "--verify", str(run.job.image)).output)
    assert described["chain"] == []
    run.job.restore()
    run.must_pass()


@pytest.mark.parametrize("program", [Program("anon_private")], ids=["anon_private"])
@pytest.mark.usefixtures("large")
def test_what_is_written_before_is_not_written_again(run: Run) -> None:
    run.start()
    whole = stats(run.job)["pages_written"]
    assert whole * 4096 > 64 << 20
    assert stats(run.job, "--precopy", "1", "--stop")["pages_written"] < whole / 10
    run.job.kill()


@pytest.mark.parametrize("program", [Program("anon_private")], ids=["anon_private"])
def test_a_job_that_goes_on_is_none_the_worse(run: Run) -> None:
    run.start()
    with orchestrator.checkpoint(run.job.name, run.job.image, precopy=2) as image:
        assert image.path == str(run.job.image)
    run.must_pass()
    run.back_to_checkpoint()
    run.job.restore()
    run.must_pass()


@pytest.mark.parametrize(
    "options",
    [["--parent", "last"], ["--compress"], ["-o", "-"], ["--precopy", "-1"]],
    ids=["parent", "compressed", "stream", "no_round"],
)
def test_what_does_not_go_together_is_refused(job: Job, options: list[str]) -> None:
    job.run(["sleep", "1000"])
    job.orch.expect(2, "checkpoint", "--cgroup", job.name, "-o", str(job.image), "--precopy", "2", *options)
    assert os.listdir(job.image.parent) == []
    job.kill()


def test_another_image_is_not_touched(job: Job) -> None:
    job.run(["sleep", "1000"])
    taken = Path(f"{job.image}.round-2")
    taken.write_text("mine")
    said = job.orch.expect(2, "checkpoint", "--cgroup", job.name, "-o", str(job.image), "--precopy", "2").errors
    assert taken.name in said
    assert taken.read_text() == "mine"
    assert os.listdir(job.image.parent) == [taken.name]
    job.kill()


def test_a_job_that_cannot_be_saved_goes_on(job: Job) -> None:
    Run(Program("unsupported"), job).start()
    job.orch.expect(20, "checkpoint", "--cgroup", job.name, "-o", str(job.image), "--precopy", "2", "--kill")
    assert os.listdir(job.image.parent) == []
    assert job.processes()
    job.kill()


def test_if_only_the_last_image_fails_nothing_is_left(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def checkpoint(target: Target, output: str, options: CheckpointOptions, _progress: object = None) -> Statistics:
        if output == str(job.image):
            seen.append(sorted(os.listdir(job.image.parent)))
            raise CaptureFailed("just so")
        return checkpointing.checkpoint(target, output, options)

    monkeypatch.setattr(precopy, "checkpoint", checkpoint)
    job.run(["sleep", "1000"])
    with pytest.raises(CaptureFailed):
        orchestrator.checkpoint(job.name, job.image, precopy=2, ending="kill")
    assert seen == [[f"{job.image.name}.round-{number}" for number in (1, 2)]]
    assert os.listdir(job.image.parent) == []
    assert job.processes()
    job.kill()


@pytest.mark.parametrize("program", [Program("snapshot_moment")], ids=["snapshot_moment"])
@pytest.mark.usefixtures("large")
def test_nothing_is_left_when_orch_is_killed(run: Run) -> None:
    run.start()
    argv = ("checkpoint", "--cgroup", run.job.name, "-o", str(run.job.image), "--precopy", "50", "--kill")
    process, stem = run.job.orch.start(*argv)
    deadline = Deadline.after(30)
    while not run.job.image.with_name(f"{run.job.image.name}.round-2").exists():
        assert process.poll() is None
        assert not deadline.passed
        select.select([], [], [], 0.005)
    process.kill()
    run.job.orch.finish(process, stem, argv)
    deadline = Deadline.after(30)
    while os.listdir(run.job.image.parent):  # by the guard, who has seen it
        assert not deadline.passed
        select.select([], [], [], 0.005)
    run.must_pass()
