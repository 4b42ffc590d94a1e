"""Describe jobs for people: their processes as trees."""

from __future__ import annotations

import os
from typing import Any

from orchestrator.freezer import make_freezer
from orchestrator.job import Job
from orchestrator.linux.proc_status import read_status
from orchestrator.paging.inquiry import ask


def describe_job(job: Job) -> dict[str, Any]:
    """Collect what 'orch ps' shows of a job; processes stand in the order of their tree, with their depth."""
    record = job.record
    processes = _describe_processes(job.pids())
    missing = ask(job.directory)
    return {
        "name": job.name,
        "state": _state(job, processes),
        "cgroup": record.cgroup,
        "created": record.created,
        "argv": list(record.argv),
        "root": record.root.pid if record.root.is_alive() else None,
        "supervisor": record.supervisor.pid if job.is_supervised() else None,
        "supervised": job.is_supervised(),
        "namespaces": list(record.new),
        "restored_from": record.restored_from,
        "missing": missing[0] if missing is not None else 0,
        "missing_at_first": missing[1] if missing is not None else 0,
        "processes": processes,
        "images": [
            {"path": note.path, "created": note.created, "exists": os.path.exists(note.path)} for note in job.images()
        ],
    }


def _state(job: Job, processes: list[dict[str, Any]]) -> str:
    if not processes:
        return "ending"
    if make_freezer(job.cgroup).is_frozen():
        return "frozen"
    if all(process["state"] in "TZ" for process in processes):
        return "stopped"
    return "running"


def _describe_processes(pids: list[Any]) -> list[dict[str, Any]]:
    import psutil

    found: dict[int, dict[str, Any]] = {}
    for pid in pids:
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                found[pid] = {
                    "pid": pid,
                    "own_pid": read_status(pid).ns_pid[-1],
                    "ppid": process.ppid(),
                    "state": _LETTERS.get(process.status(), "?"),
                    "memory": process.memory_info().rss,
                    "threads": process.num_threads(),
                    "user": process.uids().real,
                    "command": " ".join(process.cmdline()) or f"[{process.name()}]",
                    "depth": 0,
                }
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            continue
    children: dict[int, list[int]] = {}
    roots = []
    for pid, description in found.items():
        if description["ppid"] in found:
            children.setdefault(description["ppid"], []).append(pid)
        else:
            roots.append(pid)
    ordered = []
    todo = [(pid, 0) for pid in reversed(roots)]
    while todo:
        pid, depth = todo.pop()
        found[pid]["depth"] = depth
        ordered.append(found[pid])
        todo += [(child, depth + 1) for child in reversed(children.get(pid, []))]
    return ordered


# psutil's words, and the letters of ps(1).
_LETTERS = {
    "running": "R",
    "sleeping": "S",
    "disk-sleep": "D",
    "stopped": "T",
    "tracing-stop": "t",
    "zombie": "Z",
    "dead": "X",
    "idle": "I",
    "parked": "P",
}
