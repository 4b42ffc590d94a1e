"""/proc/PID/stat: one line of numbers about a task."""

from __future__ import annotations

from typing import NamedTuple

from orchestrator.linux.procfs import read_file, read_record


class Stat(NamedTuple):
    """The fields of proc_pid_stat(5) that say what a task is.

    ``starttime`` counts clock ticks since boot. Addresses and ``exit_code`` read 0 or 1 without the
    permission to trace the task. ``flags`` are the kernel's PF_* bits.
    """

    pid: int
    comm: bytes
    state: str
    ppid: int
    pgrp: int
    session: int
    tty_nr: int
    tpgid: int
    flags: int
    num_threads: int
    starttime: int
    start_code: int
    end_code: int
    start_stack: int
    start_data: int
    end_data: int
    start_brk: int
    arg_start: int
    arg_end: int
    env_start: int
    env_end: int
    exit_code: int
    exit_signal: int
    nice: int
    rt_priority: int
    policy: int


def parse_stat(raw: bytes) -> Stat:
    """Parse one stat line. The name is what stands between the first "(" and the last ")"."""
    opening = raw.index(b"(")
    closing = raw.rindex(b")")
    # field[0] is the state, which proc_pid_stat(5) numbers 3.
    field = raw[closing + 2 :].split()
    return Stat(
        int(raw[:opening]),
        raw[opening + 1 : closing],
        field[0].decode(),
        int(field[1]),
        int(field[2]),
        int(field[3]),
        int(field[4]),
        int(field[5]),
        int(field[6]),
        int(field[17]),
        int(field[19]),
        int(field[23]),
        int(field[24]),
        int(field[25]),
        int(field[42]),
        int(field[43]),
        int(field[44]),
        int(field[45]),
        int(field[46]),
        int(field[47]),
        int(field[48]),
        int(field[49]),
        int(field[35]),
        int(field[16]),
        int(field[37]),
        int(field[38]),
    )


def read_stat(pid: int | str, tid: int | None = None) -> Stat:
    """Read the stat line of a process (or "self"), or of one of its threads."""
    return parse_stat(read_record(f"/proc/{pid}/stat" if tid is None else f"/proc/{pid}/task/{tid}/stat"))


def standing(stat: Stat) -> str:
    """Say in which state a task was, and where in the kernel it is, as "state D, in nfs_wait". Raises OSError."""
    where = read_file(f"/proc/{stat.pid}/wchan").decode()
    return f"state {stat.state}" + (f", in {where}" if where not in ("", "0") else "")
