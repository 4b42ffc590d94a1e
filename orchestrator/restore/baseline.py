"""What a process starts out with when orch makes it: the state that need not be set again."""

from __future__ import annotations

from typing import NamedTuple

from orchestrator.ids import ObjectId
from orchestrator.kinds.task import attributes, credentials, limits, scheduling
from orchestrator.kinds.task.audit import UNSET, login_of
from orchestrator.kinds.task.filesystem import FilesystemContext
from orchestrator.linux.proc_misc import read_coredump_filter, read_oom_score_adj
from orchestrator.linux.proc_status import read_status
from orchestrator.tape.build import Tape
from orchestrator.tape.here import play_here


class Baseline(NamedTuple):
    """The state of a fresh child of orch."""

    credentials: credentials.Credentials
    limits: limits.Limits
    scheduling: scheduling.Scheduling
    attributes: attributes.ThreadAttributes
    filesystem: FilesystemContext
    oom_score_adj: int
    coredump_filter: int
    login: int = UNSET
    features: int = 0
    """Extended states that may be used without asking."""


def own_baseline() -> Baseline:
    """Ask ourselves with the questions that a checkpoint asks."""
    status = read_status("self")
    tape = Tape("baseline")
    who = credentials.ask_credentials(tape, status)
    bounds = limits.ask_limits(tape)
    how = scheduling.ask_scheduling(tape)
    single = attributes.ask_thread(tape, status, b"orch-init")
    states = attributes.ask_features(tape)
    played = play_here(tape)
    context = FilesystemContext(ObjectId(-1), "/", "/", 0)  # the first process sees to it
    return Baseline(
        who(played),
        bounds(played),
        how(played),
        single(played),
        context,
        read_oom_score_adj("self"),
        read_coredump_filter("self"),
        login_of("self"),
        states(played),
    )
