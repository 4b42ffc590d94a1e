"""Debian's Postgres with a client session held idle, which answers with all rows after the restore."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

import pytest

from harness.cycles import CYCLES, cycle
from harness.files_appear import wait_for_file
from harness.job import Job

SCRIPT = Path(__file__).with_name("postgres.sh")
PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
ROWS = 20_000

pytestmark = pytest.mark.skipif(not PROGRAMS, reason="postgresql is not installed")


class Session:
    """The psql session that is part of the job."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.count = 0

    def ask(self, query: str) -> str:
        """Have the session answer a query; nothing of ours stays open."""
        self.count += 1
        answer = self.job.files / f"answer-{self.count}"
        lines = f"\\o {answer}.new\n{query};\n\\o\n\\! mv {answer}.new {answer}\n"
        fd = os.open(self.job.files / "commands", os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.write(fd, lines.encode())
        finally:
            os.close(fd)
        if not wait_for_file(answer, 60, unless_gone=self.job.processes):
            logs = [(self.job.files / name).read_text(errors="replace") for name in ("session.log", "server.log")]
            raise AssertionError(f"no answer to: {query}\n{logs}\n{self.job.orch.transcript()}")
        return answer.read_text().strip()

    def end(self) -> None:
        fd = os.open(self.job.files / "commands", os.O_WRONLY | os.O_NONBLOCK)
        os.write(fd, b"\\q\n")
        os.close(fd)
        self.job.wait_until_over(30)


def environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{PROGRAMS[-1]}:{os.environ['PATH']}"}


def as_postgres(*command: str | Path) -> list[str]:
    user = pwd.getpwnam("postgres")
    path = f"PATH={PROGRAMS[-1]}:/usr/bin:/bin"
    words = ["/usr/bin/setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups"]
    return [*words, "/usr/bin/env", path, *map(str, command)]


def outside(job: Job, query: str) -> str:
    """Ask with a client of our own that is not part of the job."""
    command = as_postgres("psql", "-X", "-A", "-t", "-h", job.files, "-c", query, "postgres")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd="/")
    return done.stdout.strip()


@pytest.mark.timeout(900)
def test_session_survives(job: Job) -> None:
    subprocess.run(
        as_postgres("initdb", "-A", "trust", "-N", "-D", job.files / "data"),
        check=True,
        capture_output=True,
        timeout=120,
        cwd="/",
    )
    user = pwd.getpwnam("postgres")
    os.mkfifo(job.files / "commands")
    os.chown(job.files / "commands", user.pw_uid, user.pw_gid)
    job.run(as_postgres("/bin/bash", SCRIPT, job.files))
    assert wait_for_file(job.files / "session.log", 60, unless_gone=job.processes), job.orch.transcript()
    session = Session(job)
    session.ask(
        "create table t as select i, md5(i::text) as hash from generate_series(1, 20000) i; "
        "create index on t (hash); create temporary table mine (n int); insert into mine values (1); "
        "set application_name = 'kept'; select pg_backend_pid()"
    )
    backend = session.ask("select pg_backend_pid()")
    want = session.ask("select count(*), md5(string_agg(hash, '' order by i)) from t")
    assert want.startswith(f"{ROWS}|")
    for number in range(1, CYCLES + 1):
        cycle(job)
        assert session.ask("select pg_backend_pid()") == backend
        assert session.ask("show application_name") == "kept"
        assert session.ask("select count(*), md5(string_agg(hash, '' order by i)) from t where i <= 20000") == want
        assert session.ask("update mine set n = n + 1 returning n") == str(number + 1)
        session.ask(f"insert into t values ({ROWS + number}, md5('{ROWS + number}'))")
        assert outside(job, "select count(*) from t") == str(ROWS + number)
        # that client's server process must have ended before the next checkpoint
        while session.ask("select count(*) from pg_stat_activity where backend_type = 'client backend'") != "1":
            pass
    assert session.ask("select count(*), count(distinct hash) from t") == f"{ROWS + CYCLES}|{ROWS + CYCLES}"
    session.end()
