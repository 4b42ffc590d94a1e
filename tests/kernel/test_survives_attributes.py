"""What a process is allowed, limited to and set to: credentials, limits, scheduling, places."""

from __future__ import annotations

import pytest

from harness.program import Program, Run
from harness.ways import WAYS, Way

PROGRAMS = [
    Program("credentials", ("user",)),
    Program("credentials", ("mixed",)),
    Program("thread_credentials"),
    Program("capabilities"),
    Program("no_new_privs"),
    Program("dumpable"),
    Program("limits"),
    Program("scheduling"),
    Program("session_nice"),
    Program("oom_score"),
    Program("process_switches"),
    Program("denies"),
    Program("every_switch"),
    Program("keyrings"),
    Program("keyrings", ("session",), checkpoint_options=("--external", "keyring")),
    Program("barriers"),
    Program("audit_login"),
    Program("working_directory"),
    Program("changed_root"),
    Program("seccomp_filters"),
    Program("seccomp_strict"),
]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.id)
def test_survives(run: Run, way: Way) -> None:
    way(run)
