"""The processes a test started, wherever they were reparented to.

The test process is a child subreaper, so whatever loses its parent becomes its child, and can be
waited for: nothing that a test starts gets away, and nothing else is ever touched.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
from collections import defaultdict
from pathlib import Path

from harness.deadline import Deadline

PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    """Have orphans of our descendants reparented to this process."""
    if _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _parents() -> dict[int, int]:
    """Map every process to its parent, as this PID namespace sees them."""
    found: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            stat = Path("/proc", entry, "stat").read_text(errors="replace")
            found[int(entry)] = int(stat[stat.rindex(")") + 2 :].split()[1])
    return found


def descendants(of: int | None = None) -> list[int]:
    """List all descendants, parents before their children."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for pid, parent in _parents().items():
        children[parent].append(pid)
    found: list[int] = []
    queue = [os.getpid() if of is None else of]
    while queue:
        below = children.get(queue.pop(0), [])
        found += below
        queue += below
    return found


def describe(pid: int) -> str:
    """Say which process this is, what state it is in and who traces it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return f"{pid} (gone)"
    tracer = fields.get("TracerPid", "0")
    traced = "" if tracer == "0" else f", traced by {tracer}"
    return f"{pid} ({fields.get('Name', '?')}) {fields.get('State', '?')}{traced}: {command or 'no command line'}"


def whereabouts(pid: int) -> str:
    """Say what a process is and in which system calls its threads wait."""
    lines = [describe(pid)]
    for thread in sorted(Path(f"/proc/{pid}/task").glob("*")):
        for name in ("syscall", "stack"):
            with contextlib.suppress(OSError):
                lines += [f"  {thread.name} {name}: {line}" for line in (thread / name).read_text().splitlines()]
    return "\n".join(lines)


def reap() -> None:
    """Collect every child that has ended, without waiting."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            pass


def wait_until_childless(seconds: float) -> list[int]:
    """Wait until all descendants have ended; return those that have not."""
    deadline = Deadline.after(seconds)
    while True:
        reap()
        alive = descendants()
        if not alive or deadline.passed:
            return alive
        wait_for_an_exit(alive, deadline)


def wait_for_an_exit(pids: list[int], deadline: Deadline) -> None:
    """Return when one of the processes has ended, or with the deadline."""
    poll = select.poll()
    with contextlib.ExitStack() as stack:
        for pid in pids:
            try:
                fd = os.pidfd_open(pid)
            except ProcessLookupError:
                return
            stack.callback(os.close, fd)
            poll.register(fd, select.POLLIN)
        poll.poll(deadline.ms_left)


def kill_all(seconds: float = 5) -> list[int]:
    """Kill every descendant; return what could not be killed in time."""
    deadline = Deadline.after(seconds)
    while True:
        alive = descendants()
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        reap()
        alive = descendants()
        if not alive or deadline.passed:
            return alive
        wait_for_an_exit(alive, deadline)
