"""Deltas: images that hold only what has changed since another one."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.command import Finished
from harness.job import Job
from harness.phases import PHASES, Phased
from harness.program import Program, Run
from orchestrator.linux.pidfd import pidfd_getfd, pidfd_open

PROGRAMS = [
    Program("delta_writes"),
    Program("delta_mappings"),
    Program("delta_processes"),
    Program("delta_kernel_writes"),
    Program("delta_sharers"),
]

Between = Callable[[Job], None]


def wardens() -> list[int]:
    """List the processes of this test that hold what is noted of a job."""
    from harness.descendants import descendants

    found = []
    for pid in descendants():
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if any(word.endswith(b"/warden.py") for word in words):
            found.append(pid)
    return found


def kill_warden(_job: Job) -> None:
    (warden,) = wardens()
    os.kill(warden, signal.SIGKILL)
    os.waitpid(warden, 0)


def nothing(_job: Job) -> None:
    assert len(wardens()) == 1


def described(job: Job, image: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(job.orch.ok("show", "--json", str(image)).output)
    return found


def delta(job: Job, *options: str) -> Finished:
    """Write a delta to the newest image."""
    return job.orch.ok("checkpoint", "--cgroup", job.name, "--parent", "last", *job.checkpoint_options, *options)


def make_chain(phased: Phased, between: Between = nothing) -> None:
    """Take a checkpoint behind each phase: a whole one, and deltas to it. The job is gone then."""
    job = phased.job
    phased.start()
    for number in range(PHASES + 1):
        phased.keep_files(number)
        if number == 0:
            job.checkpoint("--track")
        else:
            between(job)
            said = delta(job, *(["--kill"] if number == PHASES else [])).output
            assert ("by comparison" in said) == (between is not nothing)
        if number < PHASES:
            phased.next(number + 1)
    job.wait_until_over()
    assert sorted(path.name for path in job.image.parent.iterdir()) == sorted(
        phased.image(number).name for number in range(PHASES + 1)
    )


@pytest.fixture
def phased(run: Run) -> Phased:
    return Phased(run)


@pytest.mark.parametrize("between", [nothing, kill_warden], ids=["tracked", "warden_killed"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.id)
def test_a_chain_brings_the_job_back(phased: Phased, between: Between) -> None:
    make_chain(phased, between)
    phased.job.restore(phased.image(PHASES))
    phased.run.must_pass()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.id)
def test_a_chain_is_restored_on_demand(phased: Phased) -> None:
    make_chain(phased)
    phased.job.restore_options = ["--lazy"]
    phased.job.restore(phased.image(PHASES))
    phased.run.must_pass()


@pytest.mark.parametrize("number", range(PHASES))
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.id)
def test_each_image_of_a_chain_brings_the_job_back(phased: Phased, number: int) -> None:
    make_chain(phased)
    phased.back_to(number)
    phased.job.restore(phased.image(number))
    for later in range(number + 1, PHASES + 1):
        phased.next(later)
    phased.run.must_pass()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.id)
def test_a_job_that_goes_on_is_none_the_worse(phased: Phased) -> None:
    phased.start()
    phased.job.checkpoint("--track")
    for number in range(1, PHASES + 1):
        phased.next(number)
        delta(phased.job)
    phased.run.must_pass()


WRITES = pytest.mark.parametrize("program", [Program("delta_writes")], ids=["delta_writes"])


@pytest.mark.parametrize("between", [nothing, kill_warden], ids=["tracked", "compared"])
@WRITES
def test_only_what_was_written_is_in_a_delta(phased: Phased, between: Between) -> None:
    make_chain(phased, between)
    whole, *deltas = [described(phased.job, phased.image(number)) for number in range(PHASES + 1)]
    assert whole["parent"] is None
    assert whole["chain"] == []
    ids = [one["id"] for one in (whole, *deltas)]
    for number, one in enumerate(deltas, 1):
        assert one["parent"] == ids[number - 1]
        assert [link["id"] for link in one["chain"]] == ids[number - 1 :: -1]
        assert one["sizes"]["pages"] < whole["sizes"]["pages"] / 2
        assert all(0 < link["referred"] <= link["pages"] for link in one["chain"])
        whole_memory = sum(memory["stored"] for memory in one["memories"])
        assert whole_memory == one["sizes"]["pages"] + sum(link["referred"] for link in one["chain"])
    text = phased.job.orch.ok("show", str(phased.image(1)), "--only", "tree").output
    assert f"needs       {phased.image(0).name}  {ids[0]}" in text


@WRITES
def test_a_chain_is_found_wherever_it_is_and_whatever_it_is_called(phased: Phased) -> None:
    make_chain(phased)
    elsewhere = phased.job.directory / "elsewhere"
    elsewhere.mkdir()
    for number in range(PHASES + 1):
        phased.image(number).rename(elsewhere / f"renamed-{number}")
    link = phased.job.directory / "link"
    link.symlink_to(elsewhere / f"renamed-{PHASES}")
    phased.job.restore(link)
    phased.run.must_pass()


@WRITES
def test_a_broken_chain_is_refused_by_name(phased: Phased) -> None:
    make_chain(phased)
    job, newest, middle = phased.job, phased.image(PHASES), phased.image(1)

    def refused(says: str, *argv: str) -> None:
        finished = job.orch.expect(50, *(argv or ("restore", "-d", str(newest))))
        assert middle.name in finished.errors
        assert says in finished.errors
        assert job.processes() == []

    whole = middle.read_bytes()
    middle.unlink()
    refused("it is missing")
    refused("it is missing", "restore", "--dry-run", str(newest))
    middle.write_bytes(whole[:-1])
    refused("is not usable")
    damaged = bytearray(whole)
    damaged[100] ^= 1
    middle.write_bytes(damaged)
    refused("is not usable")
    shutil.copy(phased.image(0), middle)
    refused("is another image")
    assert job.orch.ok("show", str(newest)).exit_code == 0
    middle.write_bytes(whole)
    job.restore(newest)
    phased.run.must_pass()


@WRITES
def test_a_stream_of_a_delta_is_refused(phased: Phased) -> None:
    make_chain(phased)
    with phased.image(1).open("rb") as stream:
        argv = ("restore", "-", "-d")
        process, stem = phased.job.orch.start(*argv, stdin=stream.fileno())
        finished = phased.job.orch.finish(process, stem, argv)
    assert finished.exit_code == 50
    assert "by its file name" in finished.errors


@WRITES
def test_what_cannot_be_a_delta_is_refused(phased: Phased) -> None:
    job = phased.job
    phased.start()
    job.checkpoint("--track")

    def refused(code: int, says: str, *options: str) -> None:
        finished = job.orch.expect(code, "checkpoint", "--cgroup", job.name, *options)
        assert says in finished.errors

    refused(2, "--parent needs an image with a name", "--parent", "last", "-o", "-")
    refused(2, "--track needs an image with a name", "--track", "-o", "-")
    refused(2, "goes together with neither", "--parent", "last", "--compress")
    refused(2, "is not beside its parent", "--parent", "last", "-o", str(job.directory / "x.ckpt"))
    refused(51, "would refer to", "--parent", "last", "-o", str(job.image))
    refused(30, "there is no image", "--parent", str(job.directory / "none.ckpt"))
    delta(job)
    refused(51, "is in use", "-o", str(job.image))
    phased.image(1).rename(job.image.with_name("other"))  # whatever it is called
    refused(51, "is in use", "-o", str(job.image))
    job.image.with_name("other").rename(phased.image(1))
    packed = job.image.with_name("packed.ckpt")
    job.checkpoint("--compress", image=packed)
    refused(2, "is compressed", "--parent", "last")
    packed.unlink()
    assert len(wardens()) == 1
    delta(job, "--kill", "--parent", str(phased.image(1)))
    job.wait_until_over()


@WRITES
def test_without_an_earlier_image_it_is_a_whole_one(phased: Phased) -> None:
    job = phased.job
    phased.start()
    said = delta(job, "-o", str(job.image)).errors
    assert "there is no earlier image" in said
    assert described(job, job.image)["parent"] is None
    phased.next(1)
    delta(job)
    assert described(job, phased.image(1))["parent"] is not None
    job.kill()
    assert wardens() == []


@WRITES
def test_what_a_job_was_restored_from_is_its_last_image(phased: Phased) -> None:
    job = phased.job
    phased.start()
    job.checkpoint_and_kill()
    job.restore()
    phased.next(1)
    delta(job)
    assert described(job, phased.image(1))["parent"] == described(job, job.image)["id"]
    phased.next(2)
    phased.next(3)
    phased.run.must_pass()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.id)
def test_a_delta_that_is_made_whole_needs_no_other(phased: Phased) -> None:
    make_chain(phased)
    job, newest = phased.job, phased.image(PHASES)
    before = described(job, newest)
    said = job.orch.ok("prune", "--remove-parents", str(newest)).output
    assert said.count(": removed") == PHASES
    assert list(newest.parent.iterdir()) == [newest]
    after = described(job, newest)
    assert (after["id"], after["created"]) == (before["id"], before["created"])
    assert (after["parent"], after["chain"]) == (None, [])
    for part in ("processes", "files", "objects", "namespaces"):
        assert after[part] == before[part]
    assert [memory["stored"] for memory in after["memories"]] == [memory["stored"] for memory in before["memories"]]
    assert " of pages" in job.orch.ok("show", "--verify", str(newest)).output
    job.restore(newest)
    phased.run.must_pass()


@WRITES
def test_a_delta_in_the_middle_is_made_whole(phased: Phased) -> None:
    make_chain(phased)
    job, newest = phased.job, phased.image(PHASES)
    said = job.orch.ok("prune", "--remove-parents", str(phased.image(2))).output
    assert f"{phased.image(0)}: kept, " in said
    assert str(newest) in said
    assert "it was whole" in job.orch.ok("prune", str(phased.image(2))).output
    job.restore(newest)
    job.kill()
    assert job.orch.ok("prune", "--remove-parents", str(newest.parent)).output.count(": removed") == PHASES
    job.restore(newest)
    phased.run.must_pass()


@WRITES
def test_damage_is_not_taken_over(phased: Phased) -> None:
    make_chain(phased)
    base, newest = phased.image(0), phased.image(PHASES)
    with base.open("r+b") as file:
        file.seek(base.stat().st_size // 2)
        file.write(b"damage")
    before = newest.read_bytes()
    assert base.name in phased.job.orch.expect(35, "prune", str(newest)).errors
    assert base.name in phased.job.orch.expect(35, "show", "--verify", str(newest)).errors
    assert base.name in phased.job.orch.expect(35, "restore", "--verify", "-d", str(newest)).errors
    assert newest.read_bytes() == before
    base.unlink()
    phased.job.orch.expect(50, "prune", str(newest))
    assert newest.read_bytes() == before


@WRITES
def test_deltas_to_an_image_that_was_restored_or_made_without_tracking(phased: Phased) -> None:
    job = phased.job
    phased.start()
    job.checkpoint_and_kill()
    job.restore()
    phased.next(1)
    assert "by comparison" in delta(job).output
    phased.next(2)
    job.checkpoint("--no-replicas", image=phased.image(2))
    job.orch.ok("checkpoint", "--cgroup", job.name, "-o", str(phased.image(3)), "--parent", str(phased.image(1)))
    whole = phased.image(0).stat().st_size
    for number in (1, 3):
        assert phased.image(number).stat().st_size < whole / 2
    job.kill()
    job.restore(phased.image(3))
    phased.next(3)
    phased.run.must_pass()


@pytest.mark.parametrize("program", [Program("own_userfaultfd")], ids=["own_userfaultfd"])
def test_memory_that_somebody_else_watches_is_refused(phased: Phased) -> None:
    job = phased.job
    phased.start()
    job.checkpoint("--track")
    phased.next(1)
    (pid,) = job.pids()
    pidfd = pidfd_open(pid)
    uffd = pidfd_getfd(pidfd, 77)
    os.close(pidfd)
    options = ("checkpoint", "--cgroup", job.name, "--parent", "last")
    try:
        phased.next(2)
        for _ in range(2):
            refused = job.orch.expect(20, *options).errors
            assert refused.count("registered with userfaultfd (write protection)") == 1
    finally:
        os.close(uffd)
    delta(job)
    phased.next(3)
    delta(job, "--kill")
    job.wait_until_over()
    job.restore(phased.image(2))
    phased.run.must_pass()


@WRITES
def test_a_delta_behind_a_checkpoint_that_was_killed(phased: Phased) -> None:
    job = phased.job
    phased.start()
    job.checkpoint("--track", image=job.image.with_name("first.ckpt"))
    for number in range(1, PHASES + 1):
        phased.next(number)
        job.checkpoint_killed_when(job.is_traced)
        assert "by comparison" in delta(job).output
    job.kill()
    job.restore(job.image.with_name(f"first.{PHASES}.ckpt"))
    phased.run.must_pass()
