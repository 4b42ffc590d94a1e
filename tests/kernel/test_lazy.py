"""Jobs that run before their memory is there: it comes from the image when it is used, or when there is time."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import orchestrator
from harness.eventually import eventually
from harness.job import Job
from harness.laziness import LAZY_WAYS, named, replace, start_without_memory
from harness.modes import FILLING, ON_DEMAND
from harness.program import Program, Run
from orchestrator.errors import PagesLost

PROGRAMS = [
    Program("missing_moved"),
    Program("missing_removed"),
    Program("missing_forked"),
    Program("missing_threads"),
    Program("missing_for_the_kernel"),
    Program("large_private"),
]


@pytest.mark.parametrize("way", LAZY_WAYS.values(), ids=LAZY_WAYS)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.id)
def test_survives(run: Run, way: Callable[[Run], None]) -> None:
    way(run)


@pytest.fixture
def moved(job: Job) -> Run:
    """Give a program that has not been started yet."""
    return Run(Program("missing_moved"), job)


def test_a_job_whose_image_is_cut_short_is_killed(moved: Run) -> None:
    """It never finds zeros where its memory should be."""
    start_without_memory(moved)
    os.truncate(moved.job.image, 4096)
    moved.let_go()
    moved.job.wait_until_over()
    moved.hold_back()
    assert not (moved.job.files / "result").exists()


def test_why_a_job_was_killed_is_told(moved: Run) -> None:
    moved.start()
    moved.job.checkpoint_and_kill()
    options = ("restore", *ON_DEMAND, str(moved.job.image))
    orch, said = moved.job.orch.start(*options)
    eventually(lambda: len(named("orch-keeper")) == 1, 10, "the job runs")
    os.truncate(moved.job.image, 4096)
    moved.let_go()
    finished = moved.job.orch.finish(orch, said, options)
    moved.hold_back()
    assert finished.exit_code == PagesLost.exit_code
    assert "the image cannot be read any more" in finished.errors


def test_nothing_shows_that_memory_came_later(moved: Run) -> None:
    """When all is there, nobody stands by it any more, and no mapping is watched."""
    start_without_memory(moved, FILLING)
    eventually(lambda: not named("orch-pager") and not named("orch-keeper"), 20, "all is there")
    for pid in moved.job.pids():
        assert " um" not in Path(f"/proc/{pid}/smaps").read_text()
        assert not [fd for fd in Path(f"/proc/{pid}/fd").iterdir() if "userfaultfd" in os.readlink(fd)]
    assert not (Path("/run/orch") / moved.job.name / "pager").exists()
    moved.must_pass()


def test_ps_tells_how_much_is_missing(moved: Run) -> None:
    start_without_memory(moved)
    assert "filling: 0%" in moved.job.orch.ok("ps", moved.job.name).output
    (described,) = json.loads(moved.job.orch.ok("ps", "--json", moved.job.name).output)
    assert described["missing"] > 1 << 20
    moved.must_pass()


def test_a_job_that_is_killed_leaves_nobody_behind(moved: Run) -> None:
    start_without_memory(moved)
    moved.job.kill()


def test_what_ends_orch_does_not_reach_who_brings_the_memory(moved: Run) -> None:
    start_without_memory(moved)
    (pager,), (keeper,), (supervisor,) = named("orch-pager"), named("orch-keeper"), named("orch")
    for pid in (pager, keeper):
        assert os.getsid(pid) != os.getsid(supervisor)
        assert Path(f"/proc/{pid}/cgroup").read_text() != Path(f"/proc/{supervisor}/cgroup").read_text()
    moved.job.kill()


def test_the_supervisor_is_not_needed(moved: Run) -> None:
    """Who brings the memory is not: it is killed when orch is gone already."""
    start_without_memory(moved)
    for pid in named("orch"):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not named("orch"), 10, "no supervisor is left")
    replace("orch-pager")
    moved.must_pass()
    moved.job.orch.ok("ps")  # clears away what the supervisor would have


def test_a_job_that_everybody_has_left_is_killed(moved: Run) -> None:
    """Where nobody can bring its memory any more, it must not go on without."""
    moved.start()
    moved.job.checkpoint_and_kill()
    options = ("restore", *ON_DEMAND, str(moved.job.image))
    orch, said = moved.job.orch.start(*options)
    eventually(lambda: len(named("orch-keeper")) == 1, 10, "the job runs")
    (pager,), (keeper,) = named("orch-pager"), named("orch-keeper")
    os.kill(keeper, signal.SIGSTOP)  # or it would take over
    os.kill(pager, signal.SIGKILL)
    os.kill(keeper, signal.SIGKILL)
    finished = moved.job.orch.finish(orch, said, options)
    assert finished.exit_code == PagesLost.exit_code
    assert "all who were to bring it were killed" in finished.errors
    moved.job.wait_until_over()


def test_orch_killed_before_the_job_runs_leaves_nothing(moved: Run) -> None:
    moved.start()
    moved.job.checkpoint_and_kill()
    orch, said = moved.job.orch.start("restore", *ON_DEMAND, str(moved.job.image))
    eventually(lambda: bool(named("orch-pager") or named("orch-keeper")), 10, "somebody brings memory")
    orch.kill()
    moved.job.orch.finish(orch, said, ("restore",))
    if moved.job.pids():  # it ran already, and goes on
        moved.must_pass()
        moved.back_to_checkpoint()
    moved.job.wait_until_over()
    moved.job.restore()  # its name is free again, and what was left is cleared away
    moved.must_pass()


def test_a_program_restores_on_demand(job: Job, tmp_path: Path) -> None:
    keeps = "import os,sys,time; kept=bytearray(os.urandom(16<<20)); print(hash(bytes(kept)), flush=True)\n"
    keeps += "while not os.path.exists(sys.argv[1]): time.sleep(0.01)\nsys.exit(0 if len(set(kept)) == 256 else 9)"
    stop = tmp_path / "stop"
    started = orchestrator.run(["/usr/bin/python3", "-c", keeps, str(stop)], name=job.name, output=tmp_path / "said")
    eventually(lambda: bool((tmp_path / "said").read_text()), 10, "the program is there")
    orchestrator.checkpoint(started, job.image, ending="kill").close()
    assert started.wait() == -signal.SIGKILL
    restored = orchestrator.restore(job.image, lazy=True)
    stop.touch()
    assert restored.wait() == 0
