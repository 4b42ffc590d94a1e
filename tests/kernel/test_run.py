"""orch run, ps and kill on real processes: a job starts, is known, passes signals on, ends, and leaves nothing."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.cgroups import of_job
from harness.command import orch_argv
from harness.deadline import Deadline
from harness.job import Job
from harness.unprivileged import orch_as_nobody
from orchestrator import errors

STATE = Path("/run/orch")

# Says that it is there, then waits for ever.
WAITS = "echo ready; exec sleep 1000"


class Foreground:
    """A job that a test runs in the foreground of orch, with its output on a pipe."""

    def __init__(self, job: Job, command: Sequence[str], *options: str) -> None:
        self.process = subprocess.Popen(
            [*orch_argv(), "run", "--name", job.name, *options, "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            # What a line's buffer had read ahead, communicate() would not see.
            bufsize=0,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], 20)[0], "the job said nothing in time"
        return self.process.stdout.readline().decode().strip()

    def end(self) -> tuple[int, str]:
        output, _ = self.process.communicate(timeout=20)
        return self.process.returncode, output.decode()


def listed(job: Job) -> dict[str, Any]:
    (found,) = json.loads(job.orch.ok("ps", "--json", job.name).output)
    assert isinstance(found, dict)
    return found


def await_text(path: Path, wanted: str, seconds: float = 10) -> str:
    """Wait for a line in a file that a job appends to, by polling: a file has no event that all systems give."""
    deadline = Deadline.after(seconds)
    while True:
        text = path.read_text() if path.exists() else ""
        if wanted in text or deadline.passed:
            return text
        select.select([], [], [], 0.01)


@pytest.mark.parametrize("status", [0, 1, 3, 255])
def test_orch_ends_with_the_exit_code_of_the_root(job: Job, status: int) -> None:
    assert Foreground(job, ["sh", "-c", f"exit {status}"]).end() == (status, "")


@pytest.mark.parametrize("signo", [signal.SIGKILL, signal.SIGSEGV, signal.SIGUSR1])
def test_orch_dies_of_the_signal_that_the_root_died_of(job: Job, signo: signal.Signals) -> None:
    assert Foreground(job, ["sh", "-c", f"kill -{signo} $$"]).end() == (-signo, "")


@pytest.mark.parametrize("signo", ["INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "WINCH"])
def test_signals_reach_the_root(job: Job, signo: str) -> None:
    program = f"import signal,sys\ngot = signal.sigwait\nsignal.pthread_sigmask(0, {{signal.SIG{signo}}})\n"
    program += f"print('ready', flush=True)\nprint(got({{signal.SIG{signo}}}).name, flush=True)\nsys.exit(9)\n"
    foreground = Foreground(job, [sys.executable, "-c", program])
    assert foreground.line() == "ready"
    foreground.process.send_signal(signal.Signals[f"SIG{signo}"])
    assert foreground.end() == (9, f"SIG{signo}\n")


def test_an_init_that_sets_no_handlers_ends_of_a_signal_as_any_program(job: Job) -> None:
    foreground = Foreground(job, ["sh", "-c", WAITS], "--new", "pid")
    assert foreground.line() == "ready"
    foreground.process.terminate()
    assert foreground.end()[0] == -signal.SIGTERM


def test_a_stopped_terminal_signal_does_not_kill_an_init(job: Job) -> None:
    foreground = Foreground(job, ["sh", "-c", "echo ready; read line; sleep 1000"], "--new", "pid")
    assert foreground.line() == "ready"
    foreground.process.send_signal(signal.SIGWINCH)
    foreground.process.send_signal(signal.SIGTERM)
    assert foreground.end()[0] == -signal.SIGTERM, "SIGWINCH came first, and must have been harmless"


def test_the_root_leads_a_session_in_a_cgroup_of_its_own(job: Job) -> None:
    code, output = Foreground(job, ["sh", "-c", "cut -d' ' -f1,5,6 /proc/self/stat; cat /proc/self/cgroup"]).end()
    assert code == 0
    assert any(line.endswith(f"/{job.name}") for line in output.splitlines()[1:])
    _, group, session = output.splitlines()[0].split()
    assert group == session
    assert int(session) != os.getsid(0)


def test_the_job_lasts_until_its_last_process_and_ends_as_its_root(job: Job) -> None:
    foreground = Foreground(job, ["sh", "-c", "(while kill -0 $$; do :; done 2>/dev/null; echo late) & exit 5"])
    assert foreground.end() == (5, "late\n")


def test_signals_reach_those_whose_root_has_ended(job: Job) -> None:
    foreground = Foreground(job, ["sh", "-c", "sleep 1000 & echo ready; exit 5"])
    assert foreground.line() == "ready"
    deadline = Deadline.after(10)
    while listed(job)["root"] is not None and not deadline.passed:
        select.select([], [], [], 0.01)
    foreground.process.terminate()
    assert foreground.end()[0] == 5


def test_a_detached_job_is_listed_with_its_tree_and_can_be_killed(job: Job) -> None:
    printed = job.orch.ok("run", "-d", "--name", job.name, "--", "sh", "-c", "sleep 1000 & sleep 1001; true")
    assert printed.output == f"{job.name}\n"
    deadline = Deadline.after(10)
    while len((found := listed(job))["processes"]) < 3 and not deadline.passed:
        select.select([], [], [], 0.01)
    assert [(process["depth"], process["command"]) for process in found["processes"]] == [
        (0, "sh -c sleep 1000 & sleep 1001; true"),
        (1, "sleep 1000"),
        (1, "sleep 1001"),
    ]
    assert found["state"] == "running"
    assert found["supervised"]
    assert f"{job.name}  running, 3 processes" in job.orch.ok("ps").output
    job.kill()
    assert not (STATE / job.name).exists()
    assert not of_job(job.name)
    assert job.orch.expect(errors.NoSuchJob.exit_code, "ps", job.name).output == ""


def test_the_output_of_a_detached_job_goes_to_its_file(job: Job) -> None:
    output = job.files / "output"
    job.orch.ok("run", "-d", "--name", job.name, "--output", str(output), "--", "sh", "-c", "echo one; echo two >&2")
    assert await_text(output, "two") == "one\ntwo\n"


def test_a_supervisor_that_was_killed_leaves_a_job_that_can_still_be_killed(job: Job) -> None:
    job.run(["sleep", "1000"])
    os.kill(listed(job)["supervisor"], signal.SIGKILL)
    deadline = Deadline.after(10)
    while listed(job)["supervised"] and not deadline.passed:
        select.select([], [], [], 0.01)
    assert "without a supervisor" in job.orch.ok("ps").output
    job.kill()
    assert not (STATE / job.name).exists()


def test_what_a_killed_supervisor_left_is_in_nobodys_way(job: Job) -> None:
    job.run(["sleep", "1000"])
    found = listed(job)
    for pid in (found["supervisor"], found["root"]):
        os.kill(pid, signal.SIGKILL)
    job.wait_until_over()
    assert job.name not in job.orch.ok("ps").output
    assert Foreground(job, ["true"]).end() == (0, "")


def test_kill_can_send_another_signal_to_the_root(job: Job) -> None:
    output = job.files / "output"
    options = ("run", "-d", "--name", job.name, "--output", str(output), "--", "sh", "-c")
    job.orch.ok(*options, 'trap "echo got; exit" USR1; echo ready; while :; do sleep 0.01; done')
    assert await_text(output, "ready")
    job.orch.ok("kill", "-s", "USR1", job.name)
    job.wait_until_over()
    assert output.read_text() == "ready\ngot\n"


def test_new_namespaces_are_the_jobs_own_and_fit_to_use(job: Job) -> None:
    names = ("pid", "mnt", "net", "uts", "ipc", "time", "cgroup")
    script = "echo $$; ls -d /proc/[0-9]* | wc -l; cat /proc/self/cgroup; grep -c . /proc/net/route; "
    script += 'python3 -c \'import socket; s=socket.create_server(("127.0.0.1",0)); '
    script += 'socket.create_connection(s.getsockname()); print("connected")\'; '
    script += " ".join(f"readlink /proc/self/ns/{name};" for name in names)
    code, output = Foreground(job, ["sh", "-c", script], "--new", ",".join(names)).end()
    lines = output.splitlines()
    assert code == 0
    assert lines[0] == "1"
    assert int(lines[1]) <= 3, "a /proc of the new PID namespace"
    assert "0::/" in lines
    assert "connected" in lines
    for name, link in zip(names, lines[-len(names) :], strict=True):
        assert link.startswith(f"{name}:")
        assert link != os.readlink(f"/proc/self/ns/{name}")


def test_mounts_made_in_a_job_with_its_own_stay_there(job: Job) -> None:
    target = job.files / "here"
    target.mkdir()
    script = f"mount -t tmpfs none {target} && grep -c {target} /proc/self/mountinfo"
    assert Foreground(job, ["sh", "-c", script], "--new", "mnt").end() == (0, "1\n")
    assert str(target) not in Path("/proc/self/mountinfo").read_text()


def test_user_directory_and_environment_are_as_asked(job: Job) -> None:
    script = "id -u; id -g; id -G; pwd; echo $GREETING"
    options = ("--user", "65534:65534", "--cwd", "/tmp", "--env", "GREETING=hello there")
    assert Foreground(job, ["sh", "-c", script], *options).end() == (0, "65534\n65534\n65534\n/tmp\nhello there\n")


def test_the_job_gets_pythons_signals_at_their_defaults_and_no_descriptors(job: Job) -> None:
    with (job.files / "held").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        script = "grep -E 'Sig(Ign|Blk)' /proc/self/status; ls /proc/$$/fd"
        process = subprocess.run(
            [*orch_argv(), "run", "--name", job.name, "--", "sh", "-c", script],
            stdout=subprocess.PIPE,
            pass_fds=[held.fileno()],
            text=True,
            check=True,
            timeout=20,
        )
    lines = process.stdout.split()
    assert int(lines[1], 16) == 0
    status = Path("/proc/self/status").read_text()
    ours = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigIgn"))
    assert int(lines[3], 16) & ~ours == 0, "what was ignored already when the tests were started may be, nothing else"
    assert lines[4:] == ["0", "1", "2"]


@pytest.mark.parametrize("detached", [[], ["-d"]], ids=["foreground", "detached"])
@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (["--", "/no/such/program"], errors.CommandNotFound, "/no/such/program"),
        (["--", "/etc/passwd"], errors.CommandNotFound, "Permission denied"),
        (["--cwd", "/no/such/place", "--", "true"], errors.UsageError, "/no/such/place"),
        (["--user", "nobody-of-that-name", "--", "true"], errors.UsageError, "nobody-of-that-name"),
        (["--new", "user", "--", "true"], errors.UsageError, "user namespace"),
        (["--new", "nose", "--", "true"], errors.UsageError, "'nose'"),
        (["--output", "/no/such/place/file", "--", "true"], errors.UsageError, "/no/such/place/file"),
        (["--env", "novalue", "--", "true"], errors.UsageError, "novalue"),
        ([], errors.UsageError, "which program"),
    ],
)
def test_what_cannot_start_is_one_clear_error_and_leaves_nothing(
    job: Job, detached: list[str], options: list[str], error: type[errors.OrchError], words: str
) -> None:
    finished = job.orch.expect(error.exit_code, "run", "--name", job.name, *detached, *options)
    assert words in finished.errors
    assert finished.errors.startswith("orch: ")
    assert not (STATE / job.name).exists()
    assert not of_job(job.name)


def test_a_name_that_is_taken_is_refused_and_the_job_goes_on(job: Job) -> None:
    job.run(["sleep", "1000"])
    finished = job.orch.expect(errors.JobExists.exit_code, "run", "--name", job.name, "--", "true")
    assert job.name in finished.errors
    assert listed(job)["state"] == "running"
    job.kill()


@pytest.mark.parametrize("name", ["", "a/b", "..", "cgroup.procs", "-x", "x" * 65, "a b"])
def test_a_name_that_cannot_be_is_refused(job: Job, name: str) -> None:
    job.orch.expect(errors.UsageError.exit_code, "run", f"--name={name}", "--", "true")


def test_jobs_without_a_name_get_different_ones(job: Job) -> None:
    names = [job.orch.ok("run", "-d", "--", "sleep", "1000").output.strip() for _ in range(3)]
    try:
        assert len(set(names)) == 3
        assert all(name.startswith("job") for name in names)
    finally:
        job.orch.ok("kill", *names)


def test_without_root_starting_is_refused(job: Job) -> None:
    process = orch_as_nobody(
        ["orchestrator.foreground", "orchestrator.cli.background"], "run", "--name", job.name, "--", "true"
    )
    assert process.returncode == errors.NotPermitted.exit_code, process.stderr
    assert "root" in process.stderr
