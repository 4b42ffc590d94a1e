"""Moving a job while it runs: it goes on there, or here, and never in both places."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
from pathlib import Path

import pytest

from harness import middleman
from harness.job import Job
from harness.program import Program, Run
from harness.two_networks import THERE, two_networks
from orchestrator.api import migrate as migrate_from_python
from orchestrator.errors import CommandNotFound, JobExists, PeerLost
from orchestrator.linux import nsfs

ORCH = str(Path(sys.executable).with_name("orch"))
PROGRAMS = [
    Program("anon_private"),
    Program("tree"),
    Program("threads"),
    Program("cow_heirlooms"),
    Program("pipes_across_fork"),
    Program("unix_pairs", ("stream",)),
    Program("big_memory", seconds=60),
]
_CONNECT = """
import os, socket, sys, threading
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def back():
    while data := s.recv(65536): os.write(1, data)
    os._exit(0)
threading.Thread(target=back).start()
while data := os.read(0, 65536): s.sendall(data)
s.shutdown(socket.SHUT_WR)
"""


def there(job: Job) -> str:
    return f"{job.name}-there"


def migrate(job: Job, *command: str, options: tuple[str, ...] = ()) -> tuple[str, ...]:
    return ("migrate", "--cgroup", job.name, *options, "--", *command)


def forget_images(job: Job) -> None:
    """Remove what is kept because a job may have gone nowhere."""
    for path in job.orch.scratch.glob("orch-*"):
        shutil.rmtree(path)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.id)
def test_a_job_goes_on_where_it_was_sent(run: Run) -> None:
    run.start()
    run.job.orch.ok(*migrate(run.job, ORCH, "receive", "--name", there(run.job)))
    run.must_pass()
    assert not list(run.job.orch.scratch.glob("orch-*"))


def test_between_two_networks(job: Job) -> None:
    run = Run(Program("tree"), job)
    with two_networks() as networks, networks.listen_there(socket.AF_INET) as listener:
        run.start()
        child = os.fork()
        if child == 0:
            try:
                nsfs.setns(networks.there, nsfs.CLONE_NEWNET)
                connection = listener.accept()[0]
                os.dup2(connection.fileno(), 0)
                os.dup2(connection.fileno(), 1)
                os.closerange(3, 256)
                os.execv(ORCH, [ORCH, "receive", "--name", there(job)])
            finally:
                os._exit(1)
        port = str(listener.getsockname()[1])
        job.orch.ok(*migrate(job, sys.executable, "-c", _CONNECT, THERE[socket.AF_INET], port))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    run.must_pass()


def test_from_python(job: Job) -> None:
    run = Run(Program("tree"), job)
    run.start()
    moved = migrate_from_python(job.name, [ORCH, "receive", "--name", there(job)])
    assert moved.name == there(job)
    assert moved.rounds >= 1
    run.must_pass()


def test_nothing_happens_if_the_destination_will_not_have_it(job: Job) -> None:
    run = Run(Program("tree"), job)
    run.start()
    job.orch.expect(JobExists.exit_code, *migrate(job, ORCH, "receive", "--name", job.name))
    job.orch.expect(PeerLost.exit_code, *migrate(job, "echo", "hello"))
    job.orch.expect(PeerLost.exit_code, *migrate(job, "true"))
    job.orch.expect(CommandNotFound.exit_code, *migrate(job, "/no/such/command"))
    run.must_pass()
    assert not list(job.orch.scratch.glob("orch-*"))


@pytest.mark.parametrize("harm", ["connection lost", "nothing said", "source killed"])
def test_the_job_goes_on_here_if_it_was_not_given_up(job: Job, harm: str) -> None:
    run = Run(Program("tree"), job)
    run.start()
    between = (sys.executable, str(middleman.__file__), harm, ORCH, "receive", "--name", there(job))
    code = -9 if harm == "source killed" else PeerLost.exit_code
    job.orch.expect(code, *migrate(job, *between, options=("--timeout", "3")))
    run.must_pass()
    assert not list(job.orch.scratch.glob("orch-migrate-*"))
    forget_images(job)  # over there nobody knows what has become of it


def test_the_images_are_kept_if_nobody_knows_where_the_job_is(job: Job) -> None:
    run = Run(Program("tree"), job)
    run.start()
    between = (sys.executable, str(middleman.__file__), "word lost", ORCH, "receive", "--name", there(job))
    failed = job.orch.expect(PeerLost.exit_code, *migrate(job, *between))
    image = re.search(r"orch restore (\S+)'", failed.errors)
    assert image is not None
    job.orch.ok("restore", image[1], "-d")
    run.must_pass()
    forget_images(job)
