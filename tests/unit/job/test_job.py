"""What is known of jobs, without starting any."""

from __future__ import annotations

import os
import subprocess

import pytest

from orchestrator import errors, job
from orchestrator.claim import claim_job
from orchestrator.daemon import Report, Reporter, detach, read_report
from orchestrator.errors import OrchError
from orchestrator.job import NAME, Birth, Stream
from orchestrator.spawn import User, parse_namespaces, parse_user


@pytest.mark.parametrize("name", ["job1", "a", "A.b-c_d@e+f", "0", "x" * 64])
def test_a_good_name(name: str) -> None:
    assert NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-a", "cgroup.procs", "cgroup.x", "a b", "a\n", "x" * 65, "é"])
def test_a_name_that_would_get_in_the_way_is_refused(name: str) -> None:
    with pytest.raises(errors.UsageError):
        claim_job(name)


def test_names_are_listed_as_people_count() -> None:
    names = ["job10", "job9", "alpha", "job1", "7"]
    assert sorted(names, key=job._by_number) == ["7", "alpha", "job1", "job9", "job10"]


def test_a_process_is_not_taken_for_a_later_one_with_its_number() -> None:
    ours = Birth.of(os.getpid())
    assert ours.is_alive()
    assert not Birth(ours.pid, ours.starttime + 1).is_alive()


def test_a_zombie_is_not_alive() -> None:
    process = subprocess.Popen(["true"])
    birth = Birth.of(process.pid)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not birth.is_alive()
    process.wait()
    assert not birth.is_alive()


def test_a_stream_is_known_again() -> None:
    reading, writing = os.pipe()
    try:
        copy = os.dup(reading)
        assert Stream.of(reading) == Stream.of(copy)
        null = os.open(os.devnull, os.O_RDONLY)
        assert Stream.of(reading) != Stream.of(null)
        os.close(null)
        os.close(copy)
        assert Stream.of(copy) is None
    finally:
        os.close(reading)
        os.close(writing)


def every_error() -> list[type[OrchError]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, OrchError)]


@pytest.mark.parametrize("kind", every_error())
def test_an_error_survives_the_way_from_the_supervisor(kind: type[OrchError]) -> None:
    error: OrchError = kind.__new__(kind)
    OrchError.__init__(error, "what happened", hint="what to do")
    reading, writing = os.pipe()
    with open(reading, "rb") as pipe:
        Reporter(writing).failed(error)
        os.close(writing)
        with pytest.raises(kind) as caught:
            read_report(pipe.readline())
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.hint) == ("what happened", "what to do")
    assert caught.value.exit_code == kind.exit_code


def test_a_supervisor_that_says_nothing_is_an_error() -> None:
    with pytest.raises(OrchError, match="ended before"):
        read_report(b"")


def test_nobody_listening_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    Reporter(writing).say(Report(status=0))
    os.close(writing)


def test_detached_work_reports_and_goes_on() -> None:
    reading, writing = os.pipe()
    release, hold = os.pipe()

    def work(reporter: Reporter) -> int:
        reporter.running("name")
        os.close(hold)
        os.read(release, 1)
        return 42

    assert detach(work, writing) == "name"
    os.close(writing)
    os.close(release)
    with open(reading, "rb") as pipe:
        assert read_report(pipe.readline()).job == "name"
        os.close(hold)
        assert read_report(pipe.readline()).status == 42
        assert pipe.read() == b""


def test_detached_work_that_fails_is_the_callers_error() -> None:
    def work(_reporter: Reporter) -> int:
        raise errors.JobExists("there is one")

    with pytest.raises(errors.JobExists, match="there is one"):
        detach(work)


def test_a_new_pid_namespace_brings_its_own_proc() -> None:
    assert parse_namespaces(["pid"]) == {"pid", "mnt"}
    assert parse_namespaces(["net", "uts"]) == {"net", "uts"}
    for wrong in ("user", "nose", ""):
        with pytest.raises(errors.UsageError):
            parse_namespaces([wrong])


def test_users_by_name_and_number() -> None:
    assert parse_user("root").uid == 0
    assert parse_user("0:0") == User(0, 0, (0,))
    assert parse_user("54321:12345") == User(54321, 12345, (12345,))
    for wrong in ("no-such-user", "54321", "root:no-such-group", ""):
        with pytest.raises(errors.UsageError):
            parse_user(wrong)
