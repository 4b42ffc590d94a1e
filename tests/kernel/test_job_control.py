"""Jobs on a terminal from outside: they get that of the restore in its place, and job control with it."""

from __future__ import annotations

import os

from harness.command import orch_argv
from harness.job import Job
from harness.person import Person, at_terminal

SHELL = ["/bin/bash", "--norc", "--noprofile", "--noediting", "-i"]


def set_up(person: Person) -> None:
    """Have a stopped job, and one in the foreground."""
    person.until("<prompt>")
    person.type("trap 'echo si''ze $(stty size)' WINCH\n")
    person.until("<prompt>")
    person.type("sh -c 'echo rea''dy; read line; echo \"came back with $line\"'\n")
    person.until("ready\r\n")
    person.type("\x1a")
    person.until("Stopped")
    person.until("<prompt>")
    person.type("sed -u s/^/answer:/\n")
    answers(person, "first")


def answers(person: Person, text: str) -> None:
    """See that the foreground job reads and writes."""
    person.type(f"{text}\n")
    person.until(f"{text}\r\n")
    person.until(f"answer:{text}\r\n")


def check(person: Person) -> None:
    """Interrupt the foreground job, go on with the stopped one, and leave."""
    person.type("\x03")
    person.until("<prompt>")
    person.type("fg\n")
    person.until("fg\r\n")
    person.until("\r\n")
    person.type("greetings\n")
    person.until("came back with greetings\r\n")
    person.until("<prompt>")
    person.resize(50)
    person.type("\n")
    person.until("size 50 80\r\n")
    person.type("exit 7\n")
    assert person.end() == 7


def test_a_shell_on_a_terminal_of_its_own_moves_to_another(job: Job) -> None:
    with at_terminal([*orch_argv(), "run", "--name", job.name, "--terminal", "--", *SHELL]) as person:
        before = person.settings()
        set_up(person)
        job.checkpoint("--kill")
        assert person.end() == -9
        assert person.settings() == before
    with at_terminal([*orch_argv(), "restore", str(job.image)], rows=31) as person:
        answers(person, "second")
        job.checkpoint("--kill")
        assert person.end() == -9
    with at_terminal([*orch_argv(), "restore", str(job.image)], rows=32) as person:
        answers(person, "third")
        check(person)
    job.wait_until_over()


def test_the_terminal_of_a_plain_tree_is_replaced(job: Job) -> None:
    image = str(job.image)
    with at_terminal(SHELL) as person:
        set_up(person)
        start = ("checkpoint", "--pid", str(person.pid), "-o", image, "--kill")
        errors = job.orch.expect(21, *start).errors
        assert f"controlling terminal: terminal {person.terminal[4:-1]} does not belong to the job" in errors
        assert f"--external '{person.terminal}'" in errors
        answers(person, "still here")
        key = person.terminal
        job.orch.ok(*start, "--external", key)
        assert person.end() == -9
    assert f"--inherit '{key}=3'" in job.orch.expect(45, "restore", image, "-d", "--name", job.name).errors
    with at_terminal([*orch_argv(), "restore", image, "--name", job.name], rows=31) as person:
        answers(person, "second")
        check(person)
    job.wait_until_over()


def test_a_terminal_that_is_handed_over_is_set_as_the_old_one_was(job: Job) -> None:
    script = """
        trap 'echo size $(stty size)' WINCH
        stty -echo -icanon
        echo ready
        until test -e go; do read -t 0.05 <> go.fifo; done
        head -c 3 | tr a-z A-Z
    """
    os.mkfifo(job.files / "go.fifo")
    options = ("--name", job.name, "--cwd", str(job.files))
    with at_terminal([*orch_argv(), "run", *options, "--", "/bin/bash", "-c", script]) as person:
        person.until("ready\r\n")
        job.checkpoint("--kill")
        assert person.end() == -9
    with at_terminal([*orch_argv(), "restore", str(job.image)], rows=31) as person:
        before = person.settings()
        person.until("size 31 80\r\n")
        assert person.settings() != before
        (job.files / "go").touch()
        person.type("abc")
        person.until("ABC")
        assert person.end() == 0
        assert person.settings() == before
    job.wait_until_over()


def test_a_job_without_a_terminal_cannot_be_given_one(job: Job) -> None:
    assert "foreground" in job.orch.expect(2, "run", "--name", job.name, "-t", "--", "true").errors
    assert "background" in job.orch.expect(2, "run", "--name", job.name, "-t", "-d", "--", "true").errors
