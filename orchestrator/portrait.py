"""Describe an image as plain data, for people and for --json."""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import TYPE_CHECKING, Any

from orchestrator.image.places import number_of
from orchestrator.kinds.files.kind import FileTable
from orchestrator.kinds.memory.record import AddressSpace, Vma
from orchestrator.kinds.record import shown_path
from orchestrator.kinds.task.process import Process
from orchestrator.snapshot import Snapshot

if TYPE_CHECKING:
    from orchestrator.opened import Image

_LONGEST_BYTES = 64


def describe_image(image: Image) -> dict[str, Any]:
    """Describe everything in an image that can be told in words and numbers."""
    header = image.file.header
    snapshot = image.snapshot
    return {
        "path": image.path,
        "id": image.id,
        "parent": None if header.parent_id is None else str(header.parent_id),
        "format": header.format_version,
        "created": image.created,
        "orch": snapshot.orch,
        "job": snapshot.job,
        "root": snapshot.root,
        "architecture": header.architecture,
        "kernel": snapshot.machine.kernel,
        "hostname": snapshot.machine.hostname,
        "clocks": {
            "realtime": snapshot.clocks.realtime / 1e9,
            "monotonic": snapshot.clocks.monotonic / 1e9,
            "boottime": snapshot.clocks.boottime / 1e9,
        },
        "sizes": {
            "file": os.fstat(image.file.fd).st_size,
            "metadata": header.metadata_length,
            "pages": header.pages_length,
        },
        "chain": _chain(snapshot),
        "processes": _processes(snapshot),
        "memories": [_memory(memory, snapshot) for memory in snapshot.memories],
        "file_tables": [_table(table) for table in snapshot.file_tables],
        "files": [_file(file) for file in snapshot.files],
        "objects": [_object(number, record) for number, record in enumerate(snapshot.objects)],
        "namespaces": [_namespace(namespace) for namespace in snapshot.namespaces],
    }


def _chain(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Describe the other images that the memory lies in, and how much of it does."""
    if not snapshot.chain:
        return []
    places = {run[2]: run[1] for memory in snapshot.memories for vma in memory.vmas for run in vma.runs}
    stored: Counter[int] = Counter()
    for at, length in places.items():
        stored[number_of(at)] += length
    return [
        {"id": str(link.id), "name": link.name, "pages": link.pages, "referred": stored[link.number]}
        for link in snapshot.chain
    ]


def _processes(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Describe the processes in the order of their tree, with their depth."""
    children: dict[int, list[Process]] = {}
    known = {process.pid for process in snapshot.processes}
    roots = []
    for process in snapshot.processes:
        if process.parent in known and process.parent != process.pid:
            children.setdefault(process.parent, []).append(process)
        else:
            roots.append(process)
    ordered = []
    todo = [(process, 0) for process in reversed(roots)]
    while todo:
        process, depth = todo.pop()
        ordered.append(_process(process, depth, snapshot))
        todo += [(child, depth + 1) for child in reversed(children.get(process.pid, []))]
    return ordered


def _process(process: Process, depth: int, snapshot: Snapshot) -> dict[str, Any]:
    described: dict[str, Any] = {
        "pid": process.pid,
        "parent": process.parent,
        "group": process.group,
        "session": process.session,
        "depth": depth,
        "name": process.name,
        "state": "zombie",
        "threads": [
            {"tid": thread.tid, "name": os.fsdecode(thread.attributes.name), "pending_signals": len(thread.pending)}
            for thread in process.threads
        ],
    }
    state = process.state
    if state is None:
        return {**described, "exit_status": process.exit_status}
    filesystem = _by_id(snapshot.filesystems, state.filesystem)
    leader = process.threads[0].credentials
    return {
        **described,
        "state": f"stopped by {_signal_name(state.stopped_by)}" if state.stopped_by else "running",
        "user": leader.uids[0],
        "group_id": leader.gids[0],
        "memory": state.memory,
        "files": state.files,
        "working_directory": shown_path(filesystem.working_directory),
        "root_directory": shown_path(filesystem.root),
        "umask": filesystem.umask,
        "pending_signals": len(state.pending),
        "posix_timers": len(state.posix_timers),
        "oom_score_adj": state.oom_score_adj,
        "cgroup": state.cgroup,
    }


def _by_id(records: list[Any], number: int) -> Any:
    return next(record for record in records if record.id == number)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _memory(memory: AddressSpace, snapshot: Snapshot) -> dict[str, Any]:
    return {
        "id": memory.id,
        "executable": _file_name(snapshot.files, memory.executable),
        "size": sum(vma.end - vma.start for vma in memory.vmas),
        "stored": sum(run.length for vma in memory.vmas for run in vma.runs),
        "mappings": [_vma(vma, snapshot) for vma in memory.vmas],
    }


def _vma(vma: Vma, snapshot: Snapshot) -> dict[str, Any]:
    protection = "".join(letter if vma.prot & bit else "-" for letter, bit in (("r", 1), ("w", 2), ("x", 4)))
    of = None
    if vma.backing in ("file", "io_uring"):
        of = _file_name(snapshot.files, vma.of)
    elif vma.of >= 0:
        of = f"object {vma.of}"
    return {
        "start": vma.start,
        "end": vma.end,
        "protection": protection + ("s" if vma.shared else "p"),
        "backing": vma.backing,
        "of": of,
        "offset": vma.offset,
        "flags": list(vma.flags),
        "stored": sum(run.length for run in vma.runs),
    }


def _file_name(files: list[Any], number: int) -> str | None:
    for file in files:
        if file.get("id") == number:
            body = file.get("body") or {}
            return shown_path(_text(body.get("path")) or "") or f"file {number}"
    return None


def _table(table: FileTable) -> dict[str, Any]:
    return {
        "id": table.id,
        "descriptors": [
            {"fd": descriptor.fd, "file": descriptor.file, "close_on_exec": descriptor.cloexec}
            for descriptor in table.descriptors
        ],
    }


def _file(file: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = _plain(file)
    body = described.pop("body", None) or {}
    return {"kind": body.pop("type", "file"), **described, "record": body}


def _object(number: int, record: dict[str, Any]) -> dict[str, Any]:
    body = _plain(record)
    return {"id": number, "kind": body.pop("type", "object"), "record": body}


def _namespace(namespace: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = _plain(namespace)
    body = described.pop("body", None) or {}
    body.pop("type", None)
    return {**described, "record": body}


def _plain(value: Any) -> Any:
    """Make decoded records fit for JSON: short bytes as text, long ones as their length, extents as their sum."""
    if isinstance(value, dict):
        if set(value) == {"size", "extents"}:
            return {"size": value["size"], "stored": sum(extent[1] for extent in value["extents"])}
        return {_text(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, bytes):
        return _text(value) if len(value) <= _LONGEST_BYTES else f"{len(value)} bytes"
    return value


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="backslashreplace")
    return None if value is None else str(value)
