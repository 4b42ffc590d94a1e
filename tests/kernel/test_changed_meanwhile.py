"""Mappings that are no longer what they were when a running job was looked at, shortly before it was held."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.job import Job
from harness.program import Program, Run
from orchestrator.capture import late
from orchestrator.capture.checkpoint import Request, take
from orchestrator.errors import CaptureFailed
from orchestrator.freezer import find_cgroup, make_freezer
from orchestrator.image.writer import ImageWriter


def test_a_replica_that_cannot_be_saved_after_all(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHTEST_MIB", "16")
    monkeypatch.setattr(late, "_UNFIT", frozenset())  # as if the memory was not sealed yet
    run = Run(Program("seals_memory"), job)
    run.start()
    freezer = make_freezer(find_cgroup(job.name))
    image = tmp_path / "x.ckpt"
    with (
        pytest.raises(CaptureFailed, match="changed what its children inherit"),
        ImageWriter(image, architecture="x86_64", page_size=4096) as writer,
    ):
        take(Request("x", freezer=freezer, durable=False), writer)
    assert not list(tmp_path.iterdir())
    run.must_pass()
