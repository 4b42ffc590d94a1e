"""Images that go through pipes, and compressed ones."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator

import lz4.frame
import pytest
import zstandard

from harness.command import Finished
from harness.files_appear import wait_for_file
from harness.job import Job
from harness.program import Program, Run


@pytest.fixture
def run(job: Job) -> Run:
    run = Run(Program("anon_shared"), job)
    run.start()
    return run


@pytest.mark.parametrize("how", [("1",), ("zstd:5",), (), ("lz4",), ("lz4:9",)], ids="-".join)
def test_a_compressed_image_is_an_image(run: Run, how: tuple[str, ...]) -> None:
    job = run.job
    job.checkpoint("--kill", "--compress", *how)
    plain = job.image.with_suffix(".plain")
    with job.image.open("rb") as source, plain.open("wb") as target:
        if how[:1] in (("lz4",), ("lz4:9",)):
            target.write(lz4.frame.decompress(source.read()))
        else:
            zstandard.ZstdDecompressor().copy_stream(source, target)
    assert job.image.stat().st_size < plain.stat().st_size
    for path in (job.image, plain):
        assert " of pages" in job.orch.ok("show", "--verify", str(path)).output
    job.restore()
    run.must_pass()


@pytest.mark.parametrize("how", ["gzip", "zstd:20", "lz4:0", "0", "20", "zstd:", "lz4:x"])
def test_other_compression_is_refused(job: Job, how: str) -> None:
    finished = job.orch.expect(2, "checkpoint", "--cgroup", "nobody", "--compress", how)
    assert "choose from zstd" in finished.errors


@pytest.mark.parametrize("ending", ["run", "kill"])
@pytest.mark.parametrize("options", [(), ("--compress",), ("--compress", "lz4")], ids=["plain", "zstd", "lz4"])
def test_a_reader_that_ends_early_does_not_end_the_job(run: Run, options: tuple[str, ...], ending: str) -> None:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.close(reading)
    kill = ("--kill",) if ending == "kill" else ()
    argv = ("checkpoint", "--cgroup", run.job.name, *kill, "-o", "-", *options)
    process, stem = run.job.orch.start(*argv, stdout=writing)
    os.close(writing)
    finished = run.job.orch.finish(process, stem, argv)
    assert finished.exit_code == 36
    assert "standard output: Broken pipe" in finished.errors
    run.must_pass()


@pytest.mark.parametrize("options", [(), ("--compress", "lz4"), ("--no-replicas",)], ids="-".join)
def test_a_slow_reader_does_not_keep_a_job_from_running(job: Job, options: tuple[str, ...]) -> None:
    run = Run(Program("large_private"), job)
    run.start()
    reading, writing = os.pipe2(os.O_CLOEXEC)
    argv = ("checkpoint", "--cgroup", job.name, "-o", "-", *options)
    process, stem = job.orch.start(*argv, stdout=writing)
    os.close(writing)
    data = os.read(reading, 1)  # from here on the job runs, and the rest does not fit into the pipe
    run.let_go()
    assert wait_for_file(job.files / "result", 20)
    assert process.poll() is None
    with open(reading, "rb") as stream:
        data += stream.read()
    assert job.orch.finish(process, stem, argv).exit_code == 0
    job.wait_until_over()
    assert (job.files / "result").read_text().strip() == "PASS"
    run.hold_back()
    run.back_to_checkpoint()
    assert given(job, data, "restore", "-", "-d", "--verify").exit_code == 0
    run.must_pass()


@pytest.mark.parametrize("options", [(), ("--kill",)], ids=["run", "kill"])
def test_a_job_can_be_ended_while_its_image_goes_out(job: Job, options: tuple[str, ...]) -> None:
    run = Run(Program("large_private"), job)
    run.start()
    reading, writing = os.pipe2(os.O_CLOEXEC)
    argv = ("checkpoint", "--cgroup", job.name, "-o", "-", *options)
    process, stem = job.orch.start(*argv, stdout=writing)
    os.close(writing)
    with open(reading, "rb") as stream:
        data = stream.read(1)
        job.orch.ok("kill", job.name)
        data += stream.read()
    finished = job.orch.finish(process, stem, argv)
    job.wait_until_over()
    assert finished.exit_code == 23
    assert "is gone" in finished.errors
    assert given(job, data, "restore", "-", "-d").exit_code == 31


@pytest.mark.parametrize(
    "program",
    [Program("unix_unaccepted", ("abstract",)), Program("tcp_unaccepted", ("v4", "data"))],
    ids=lambda one: one.id,
)
def test_what_can_only_be_taken_is_not_taken_for_a_reader_that_has_ended(job: Job, program: Program) -> None:
    run = Run(program, job)
    run.start()
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.close(reading)
    argv = ("checkpoint", "--cgroup", job.name, "--kill", "-o", "-")
    process, stem = job.orch.start(*argv, stdout=writing)
    os.close(writing)
    assert job.orch.finish(process, stem, argv).exit_code == 36
    job.move()
    job.move("--compress")
    run.must_pass()


@pytest.mark.parametrize("ending", [(), ("--kill",)], ids=["run", "kill"])
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
@pytest.mark.parametrize("signo", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "term"])
def test_orch_may_be_ended_while_an_image_goes_out(
    job: Job, signo: signal.Signals, encrypted: bool, ending: tuple[str, ...]
) -> None:
    run = Run(Program("large_private"), job)
    run.start()
    key = job.directory / "key"
    job.orch.ok("keygen", "-o", str(key))
    options = (*ending, *(("--encrypt", str(key)) if encrypted else ()))
    reading, writing = os.pipe2(os.O_CLOEXEC)
    process, _ = job.orch.start("checkpoint", "--cgroup", job.name, "-o", "-", *options, stdout=writing)
    os.close(writing)
    with open(reading, "rb") as stream:
        data = stream.read(1)
        process.send_signal(signo)
        assert process.wait(20) == (-signo if signo == signal.SIGKILL else 128 + signo)
        data += stream.read()
    assert given(job, data, "restore", "-", "-d", "--key", str(key)).exit_code == 31
    run.must_pass()


def given(job: Job, data: bytes, *argv: str) -> Finished:
    """Run a command with an image on its input."""
    source = job.directory / "stream"
    source.write_bytes(data)
    with source.open("rb") as stream:
        process, stem = job.orch.start(*argv, stdin=stream.fileno())
        return job.orch.finish(process, stem, argv)


@pytest.mark.parametrize("compressed", ["", "zstd", "lz4"])
def test_half_a_stream_is_refused(run: Run, compressed: str) -> None:
    job = run.job
    whole = job.checkpoint_and_kill(*(["--compress", compressed] if compressed else [])).read_bytes()
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


@contextlib.contextmanager
def a_terminal() -> Iterator[int]:
    main, terminal = os.openpty()
    try:
        yield terminal
    finally:
        os.close(main)
        os.close(terminal)


def test_an_image_is_not_written_to_a_terminal(job: Job) -> None:
    with a_terminal() as terminal:
        argv = ("checkpoint", "--cgroup", "nobody", "-o", "-")
        process, stem = job.orch.start(*argv, stdout=terminal)
        finished = job.orch.finish(process, stem, argv)
    assert finished.exit_code == 2
    assert "not for a terminal" in finished.errors


def test_an_input_may_be_one_that_does_not_block(run: Run) -> None:
    job = run.job
    data = job.checkpoint_and_kill().read_bytes()
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(writing, True)
    argv = ("restore", "-", "-d")
    process, stem = job.orch.start(*argv, stdin=reading)
    os.close(reading)
    with open(writing, "wb") as stream:
        stream.write(data)
    assert job.orch.finish(process, stem, argv).exit_code == 0
    run.must_pass()


@pytest.mark.parametrize("verb", ["restore", "show"])
def test_an_image_is_not_read_from_a_terminal(job: Job, verb: str) -> None:
    with a_terminal() as terminal:
        process, stem = job.orch.start(verb, "-", stdin=terminal)
        finished = job.orch.finish(process, stem, (verb, "-"))
    assert finished.exit_code == 2
    assert "not read from a terminal" in finished.errors


def test_images_have_checksums_of_their_pages_unless_told_otherwise(run: Run) -> None:
    job = run.job
    sent = job.directory / "sent"
    with sent.open("wb") as target:
        argv = ("checkpoint", "--cgroup", job.name, "-o", "-")
        process, stem = job.orch.start(*argv, stdout=target.fileno())
        assert job.orch.finish(process, stem, argv).exit_code == 0
    for image in (sent, job.checkpoint()):
        assert " of pages" in job.orch.ok("show", "--verify", str(image)).output
    assert "no page checksums" in job.orch.ok("show", "--verify", str(job.checkpoint("--no-checksums"))).output
    run.must_pass()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, None], ids=["socket", "pipe that does not block"])
def test_an_output_may_be_what_others_have_made_it(run: Run, kind: int | None) -> None:
    job = run.job
    if kind is None:
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(reading, True)
    else:
        reading, writing = (end.detach() for end in socket.socketpair(socket.AF_UNIX, kind))
    argv = ("checkpoint", "--cgroup", job.name, "--kill", "-o", "-")
    process, stem = job.orch.start(*argv, stdout=writing)
    os.close(writing)
    with open(reading, "rb") as stream:
        data = stream.read()
    assert job.orch.finish(process, stem, argv).exit_code == 0
    job.wait_until_over()
    assert given(job, data, "restore", "-", "-d").exit_code == 0
    run.must_pass()
