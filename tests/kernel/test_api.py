"""The Python interface on real jobs, in both forms."""

from __future__ import annotations

import select
import signal
from pathlib import Path

import pytest
import trio

import orchestrator
from harness.deadline import Deadline
from harness.job import Job
from orchestrator import aio, errors

# Counts in a file until the file "stop" is there.
COUNTS = "n=0; while [ ! -e stop ]; do n=$((n+1)); echo $n >count.new; mv count.new count; sleep 0.01; done; exit 7"


def count(job: Job) -> int:
    path = job.files / "count"
    return int(path.read_text()) if path.exists() else 0


def await_more(job: Job, than: int) -> int:
    deadline = Deadline.after(10)
    while (now := count(job)) <= than:
        assert not deadline.passed, "the job does not count on"
        select.select([], [], [], 0.01)
    return now


def start(job: Job) -> orchestrator.StartedJob:
    return orchestrator.run(["sh", "-c", COUNTS], name=job.name, cwd=job.files)


def test_run_checkpoint_kill_restore_and_wait(job: Job) -> None:
    started = start(job)
    before = await_more(job, 3)
    image = orchestrator.checkpoint(started, job.image, ending="kill")
    assert started.wait() == -signal.SIGKILL
    assert image.job == job.name
    image.close()
    killed_at = count(job)
    restored = orchestrator.restore(job.image)
    assert restored.name == job.name
    assert restored.record.restored_from == str(job.image)
    assert restored.pids()
    assert await_more(job, killed_at) > before
    (job.files / "stop").touch()
    assert restored.wait() == 7


def test_a_checkpoint_of_a_job_that_goes_on_is_noted(job: Job) -> None:
    started = start(job)
    await_more(job, 1)
    orchestrator.checkpoint(job.name, job.image).close()
    assert [note.path for note in orchestrator.find_job(job.name).images()] == [str(job.image)]
    assert orchestrator.list_jobs()
    (job.files / "stop").touch()
    assert started.wait() == 7
    with pytest.raises(errors.NoSuchJob):
        orchestrator.find_job(job.name)


def test_a_plain_tree_by_its_process_id(job: Job) -> None:
    started = orchestrator.run(["sleep", "1000"], name=job.name)
    with orchestrator.checkpoint(int(started.record.root.pid), job.image) as image:
        assert image.describe()["root"] == started.record.root.pid
    orchestrator.kill_job(job.name)
    assert started.wait() == -signal.SIGKILL


def test_errors_arrive_as_what_they_are(job: Job, tmp_path: Path) -> None:
    with pytest.raises(errors.CommandNotFound):
        orchestrator.run(["/no/such/program"], name=job.name)
    with pytest.raises(errors.ImageMissing):
        orchestrator.restore(tmp_path / "missing.ckpt")
    with pytest.raises(errors.ImageMissing):
        orchestrator.open_image(tmp_path / "missing.ckpt")
    with pytest.raises(errors.NoSuchJob):
        orchestrator.checkpoint(f"no-{job.name}", job.image)
    with pytest.raises(errors.NoSuchProcess):
        orchestrator.checkpoint(2**22 - 1, job.image)
    with pytest.raises(errors.SelfInJob):
        orchestrator.checkpoint(1, job.image)


def test_the_same_on_trio(job: Job) -> None:
    async def main() -> None:
        started = await aio.run(["sh", "-c", COUNTS], name=job.name, cwd=job.files)
        with trio.move_on_after(0.05) as scope:
            await aio.wait(started)
        assert scope.cancelled_caught
        with await aio.checkpoint(started, job.image, ending="kill") as image:
            assert image.job == job.name
        assert await aio.wait(started) == -signal.SIGKILL
        restored = await aio.restore(job.image)
        (job.files / "stop").touch()
        assert await aio.wait(restored) == 7

    trio.run(main)
