"""Find out which namespaces a job has of its own, and describe them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Sequence

from orchestrator.errors import CaptureFailed
from orchestrator.ids import HostPid
from orchestrator.kinds.scope import Scope
from orchestrator.linux.nsfs import TYPES
from orchestrator.linux.proc_misc import list_pids, list_threads, read_ns_ids
from orchestrator.linux.proc_status import read_status
from orchestrator.namespaces.kind import Namespace
from orchestrator.namespaces.net import look_at_new
from orchestrator.namespaces.pid import read_last_pid
from orchestrator.namespaces.registry import NAMESPACE_KINDS
from orchestrator.namespaces.undo import note_shared_undo

_FOR_CHILDREN = {"pid": "pid_for_children", "time": "time_for_children"}


def prepare(pids: Sequence[HostPid]) -> None:
    """Do, before the job is held, what need not be done while it is. The job may change its mind meanwhile."""
    own = read_ns_ids(os.getpid())
    for pid in pids:
        ids = _thread_ids(pid, pid)
        if "mnt" not in ids:
            continue
        if ids["net"] != own["net"]:
            look_at_new()
        if ids["pid"] != own["pid"]:
            with contextlib.suppress(OSError, RuntimeError):  # it is a lower bound, no more
                read_last_pid(pid)
        return


def survey(pids: Sequence[HostPid], scope: Scope, ours: Collection[int] = ()) -> list[Namespace]:
    """Return one record for each kind of namespace, described where it is private; the job is held.

    Threads in other namespaces than the first process's, and processes outside the job in its private
    ones (except ``ours``), go into the scope. Raises CaptureFailed if a namespace cannot be looked at.
    """
    own = read_ns_ids(os.getpid())
    living = [(pid, ids) for pid in pids if "mnt" in (ids := _thread_ids(pid, pid))]
    if not living:  # nothing but zombies
        return [Namespace(name, False) for name in NAMESPACE_KINDS]
    first, job = living[0]
    _note_nested(living, job, scope)
    private = {name for name in NAMESPACE_KINDS if job.get(name) != own[name]}
    _note_strangers(first, {name: job[name] for name in private}, {*pids, *ours}, scope)
    found = []
    for name, kind in NAMESPACE_KINDS.items():
        body = None
        if name in private:
            try:
                body = kind.capture(first, scope)
            except (OSError, RuntimeError) as error:
                raise CaptureFailed(f"{scope.names[first]}: cannot look into its {name} namespace: {error}") from error
        found.append(Namespace(name, name in private, body))
    if "ipc" not in private:
        note_shared_undo(scope, [pid for pid, _ in living])
    return found


def _thread_ids(pid: int, tid: int) -> dict[str, int]:
    try:
        return read_ns_ids(pid) if tid == pid else _ids_at(f"/proc/{pid}/task/{tid}/ns")
    except (FileNotFoundError, ProcessLookupError):
        return {}


def _ids_at(directory: str) -> dict[str, int]:
    ids = {}
    for name in TYPES:
        try:
            target = os.readlink(f"{directory}/{name}")  # half the time of a stat, and there may be thousands
        except FileNotFoundError:
            continue
        ids[name] = int(target[target.index("[") + 1 : -1])
    return ids


def _note_nested(living: Iterable[tuple[HostPid, dict[str, int]]], job: dict[str, int], scope: Scope) -> None:
    seen: set[tuple[str, int]] = set()
    for pid, ids in living:
        for tid in list_threads(pid):
            theirs = ids if tid == pid else _thread_ids(pid, tid)
            for name in NAMESPACE_KINDS:
                inode = theirs.get(name, job[name])
                if inode != job[name] and (name, inode) not in seen:
                    seen.add((name, inode))
                    task = "" if tid == pid else f" of thread {tid}"
                    scope.unsupported(
                        pid,
                        f"{name} namespace{task}",
                        "it is not that of the job's first process; namespaces inside the job cannot be rebuilt",
                    )
        for name, link in _FOR_CHILDREN.items():
            if ids.get(name) == job[name] and ids.get(link) != ids[name]:
                scope.unsupported(
                    pid, f"{name} namespace for its children", "it is not its own; such a namespace cannot be rebuilt"
                )


def _note_strangers(first: HostPid, private: dict[str, int], known: set[int], scope: Scope) -> None:
    if not private:
        return
    for pid in list_pids():
        if pid in known or pid == os.getpid():
            continue
        try:
            ids = read_ns_ids(pid)
            shared = [name for name, inode in private.items() if ids.get(name) == inode]
            if shared and read_status(pid).tracer_pid != os.getpid():  # else it is a replica
                with open(f"/proc/{pid}/comm", "rb") as file:
                    comm = os.fsdecode(file.read().strip())
                scope.outside(
                    first,
                    " and ".join(f"{name} namespace" for name in shared),
                    f"process {pid} ({comm}) outside the job is in it, too",
                )
        except (FileNotFoundError, ProcessLookupError):
            continue
        except PermissionError:  # it has a capability that we lack, so it is not the job's: that could have no more
            continue
