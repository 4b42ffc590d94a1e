"""Other ways to checkpoint and restore, each tried on a few programs that lean on much of a job's state."""

from __future__ import annotations

import pytest

from harness.job import Job
from harness.program import Program, Run
from harness.ways import MORE_WAYS, Way

PROGRAMS = [
    Program("tree"),
    Program("threads"),
    Program("leader_exited"),
    Program("main_thread_ended"),
    Program("sessions"),
    Program("clone_vm"),
    Program("anon_shared"),
    Program("cow_contents"),
    Program("cow_heirlooms"),
    Program("pending_signals"),
    Program("file_sharing"),
    Program("pipes_across_fork"),
    Program("blocked_futex", ("woken",)),
    Program("blocked_futex", ("absolute",)),
    Program("unix_pairs", ("stream",)),
    Program("credentials", ("user",)),
    Program("seccomp_filters", ("harmless",)),
    Program("terminals"),
    Program("controls_sessions"),
]


IF_LARGE = [
    Program("rseq_section"),
    Program("user_dispatch"),
    Program("tun_devices"),
    Program("namespace_files", ("leaves",)),
    Program("cow_contents", run_options=("--new", "pid,mnt")),
    Program("many_processes", run_options=("--new", "pid,mnt"), seconds=60),
]
"""What a replica, or its end, might be in the way of."""

FEWER = {"live_large", "delta", "delta_by_comparison", "precopied", "lazily", "sent_live"}
"""Ways that other tests go, too; here each third program does."""


@pytest.mark.parametrize(
    ("program", "way"),
    [
        pytest.param(program, way, id=f"{program.id}-{name}")
        for name, way in MORE_WAYS.items()
        for program in (PROGRAMS[::3] if name in FEWER else PROGRAMS)
    ],
)
def test_survives(run: Run, way: Way) -> None:
    way(run)


@pytest.mark.parametrize("program", IF_LARGE, ids=lambda program: program.id)
def test_survives_if_it_is_large(run: Run, program: Program) -> None:  # noqa: ARG001 - of the fixture "run"
    MORE_WAYS["live_large"](run)


def test_a_job_outlives_orch_in_spite_of_filters_that_would_end_it(job: Job) -> None:
    """While the image is written nothing of a tape is left that they could refuse."""
    MORE_WAYS["killed_while_writing"](Run(Program("seccomp_filters"), job))


@pytest.mark.parametrize("new", ["cgroup", "cgroup,pid,mnt"])
def test_the_jobs_cgroup_is_the_root_of_its_cgroup_namespace(job: Job, new: str) -> None:
    run = Run(Program("sees_cgroup", run_options=("--new", new)), job)
    run.start()
    for _ in range(2):
        job.checkpoint_and_kill()
        job.restore()
    run.must_pass()
