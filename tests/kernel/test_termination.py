"""orch is told to end while it holds a job: the job goes on, and nothing is left."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cgroups import of_job
from harness.deadline import Deadline
from harness.job import Job
from harness.program import Program, Run
from harness.stuck import STUCK, require_userfaultfd
from orchestrator.capture import replica
from orchestrator.capture.checkpoint import Request, take
from orchestrator.cli.termination import unwind_on_termination
from orchestrator.freezer import find_cgroup, make_freezer
from orchestrator.image.writer import ImageWriter
from orchestrator.linux.proc_misc import read_children


def asks_frozen(cgroup: Path) -> bool:
    name = "cgroup.freeze" if (cgroup / "cgroup.freeze").exists() else "freezer.self_freezing"
    return (cgroup / name).read_text().strip() == "1"


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_checkpoint_that_is_told_to_end_thaws_the_job(job: Job, signo: signal.Signals) -> None:
    require_userfaultfd()
    job.run([sys.executable, "-c", STUCK])
    (cgroup,) = of_job(job.name)
    argv = ("checkpoint", "--cgroup", job.name, "-o", str(job.image), "--timeout", "60")
    process, stem = job.orch.start(*argv)
    deadline = Deadline.after(20)
    while not asks_frozen(cgroup):
        assert process.poll() is None
        assert not deadline.passed, "the checkpoint did not begin to freeze"
        select.select([], [], [], 0.005)
    process.send_signal(signo)
    finished = job.orch.finish(process, stem, argv)
    assert finished.exit_code == 128 + signo
    assert "Traceback" not in finished.errors
    assert not asks_frozen(cgroup)
    assert os.listdir(job.image.parent) == []
    job.kill()


@pytest.mark.parametrize("amid", ["birth", "end"])
def test_a_replica_leaves_no_zombie(job: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, amid: str) -> None:
    monkeypatch.setenv("ORCHTEST_MIB", "16")
    run = Run(Program("large_private"), job)
    run.start()

    def told_to_end(function: Callable[..., object]) -> Callable[..., object]:
        def told(*arguments: object) -> object:
            os.kill(os.getpid(), signal.SIGTERM)
            return function(*arguments)

        return told

    orch = os.fork()
    if orch == 0:
        code = 1
        try:
            unwind_on_termination()
            if amid == "birth":
                monkeypatch.setattr(replica.Replica, "__init__", told_to_end(replica.Replica.__init__))
            else:
                monkeypatch.setattr(replica, "reap_in", told_to_end(replica.reap_in))
            with ImageWriter(tmp_path / "x.ckpt", architecture="x86_64", page_size=4096) as writer:
                take(Request("x", freezer=make_freezer(find_cgroup(job.name)), durable=False), writer)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(orch, 0)[1]) == 128 + signal.SIGTERM
    assert not list(tmp_path.iterdir())
    for pid in make_freezer(find_cgroup(job.name)).tasks():
        assert read_children(pid, pid) == []
    run.must_pass()
