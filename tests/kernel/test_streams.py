"""Images that go through pipes, and compressed ones."""

from __future__ import annotations

import os

import pytest
import zstandard

from harness.command import Finished
from harness.job import Job
from harness.program import Program, Run


@pytest.fixture
def run(job: Job) -> Run:
    run = Run(Program("anon_shared"), job)
    run.start()
    return run


def test_a_compressed_image_is_an_image(run: Run) -> None:
    job = run.job
    job.checkpoint("--compress", "1", "--kill", "--checksums")
    plain = job.image.with_suffix(".plain")
    with job.image.open("rb") as source, plain.open("wb") as target:
        zstandard.ZstdDecompressor().copy_stream(source, target)
    assert job.image.stat().st_size < plain.stat().st_size
    for path in (job.image, plain):
        assert " of pages" in job.orch.ok("show", "--verify", str(path)).output
    job.restore()
    run.must_pass()


@pytest.mark.parametrize("options", [(), ("--compress",)], ids=["plain", "compressed"])
def test_a_reader_that_ends_early_does_not_end_the_job(run: Run, options: tuple[str, ...]) -> None:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.close(reading)
    argv = ("checkpoint", "--cgroup", run.job.name, "--kill", "-o", "-", *options)
    process, stem = run.job.orch.start(*argv, stdout=writing)
    os.close(writing)
    finished = run.job.orch.finish(process, stem, argv)
    assert finished.exit_code == 36
    assert "standard output: Broken pipe" in finished.errors
    run.must_pass()


def given(job: Job, data: bytes, *argv: str) -> Finished:
    """Run a command with an image on its input."""
    source = job.directory / "stream"
    source.write_bytes(data)
    with source.open("rb") as stream:
        process, stem = job.orch.start(*argv, stdin=stream.fileno())
        return job.orch.finish(process, stem, argv)


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
def test_half_a_stream_is_refused(run: Run, compressed: bool) -> None:
    job = run.job
    whole = job.checkpoint_and_kill(*(["--compress"] if compressed else [])).read_bytes()
    for length, code in ((0, 32), (len(whole) // 2, 31), (len(whole) - 1, 31)):
        assert given(job, whole[:length], "restore", "-", "-d").exit_code == code
        assert job.processes() == []
    if compressed:
        damaged = bytearray(whole)
        damaged[len(whole) // 2] ^= 1
        assert given(job, bytes(damaged), "restore", "-", "-d").exit_code == 35
        assert given(job, whole + b"more", "restore", "-", "-d").exit_code == 35
    assert given(job, whole, "show", "-").exit_code == 0
    assert given(job, whole, "restore", "-", "-d").exit_code == 0
    run.must_pass()


def test_the_output_of_a_checkpoint_is_either_image_or_figures(job: Job) -> None:
    finished = job.orch.expect(2, "checkpoint", "--cgroup", "nobody", "-o", "-", "--stats", "-")
    assert "--stats" in finished.errors


def test_an_image_is_not_written_to_a_terminal(job: Job) -> None:
    main, terminal = os.openpty()
    try:
        argv = ("checkpoint", "--cgroup", "nobody", "-o", "-")
        process, stem = job.orch.start(*argv, stdout=terminal)
        finished = job.orch.finish(process, stem, argv)
        assert finished.exit_code == 2
        assert "not for a terminal" in finished.errors
    finally:
        os.close(main)
        os.close(terminal)
