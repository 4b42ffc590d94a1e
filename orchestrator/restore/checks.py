"""Say no before anything exists: what of an image cannot come back on this machine, right now."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Mapping

from orchestrator.errors import CannotHonour, PidTaken
from orchestrator.ids import ObjectId
from orchestrator.kinds.files.depot import check_files
from orchestrator.kinds.files.external import External
from orchestrator.kinds.files.kind import OpenFile
from orchestrator.kinds.files.regular import describe_type
from orchestrator.kinds.memory.sysv import SysvSegment, check_segment
from orchestrator.kinds.record import native_path
from orchestrator.kinds.sockets.registry import claims_in
from orchestrator.kinds.sockets.tcp_connection import refuse_elsewhere
from orchestrator.kinds.sockets.unix_records import UnixAlone
from orchestrator.kinds.task.filesystem import check_filesystem
from orchestrator.kinds.task.speculation import check_speculation
from orchestrator.kinds.terminals.records import OutsideTerminal
from orchestrator.linux import vdso
from orchestrator.linux.procfs import read_file
from orchestrator.linux.xstate import own_xstate_bytes
from orchestrator.namespaces.mount import MountNamespace, is_remade
from orchestrator.namespaces.registry import NAMESPACE_KINDS
from orchestrator.snapshot import Snapshot


def check(snapshot: Snapshot, *, new: frozenset[str], host_pids: bool, inherited: Mapping[str, int]) -> None:
    """Raise the RestoreError that a restore would run into."""
    _check_machine(snapshot)
    if host_pids:
        _check_pids(snapshot)
    private = {namespace.kind for namespace in snapshot.namespaces if namespace.private}
    for namespace in snapshot.namespaces:
        check_kind = NAMESPACE_KINDS[namespace.kind].check
        if namespace.private and check_kind is not None and namespace.body is not None:
            check_kind(namespace.body)
    mounts = next((n.body for n in snapshot.namespaces if n.kind == "mnt" and n.private), None)
    fresh = private | new

    def is_remade_path(path: str | None) -> bool:
        return isinstance(mounts, MountNamespace) and path is not None and is_remade(mounts, path)

    def is_rebuilt(file: OpenFile) -> bool:
        needs = claims_in(file.body)
        return (needs == "net" and "net" in fresh) or is_remade_path(_path_of(file.body))

    check_files(snapshot.files, is_rebuilt, lambda file: holder(snapshot, file.id))
    if "net" in fresh:
        for file in snapshot.files:
            refuse_elsewhere(file)
    for context in snapshot.filesystems:
        if not is_remade_path(context.working_directory) and not is_remade_path(context.root):
            check_filesystem(context)
    if "ipc" not in fresh:
        for record in snapshot.objects:
            if isinstance(record, SysvSegment):
                check_segment(record)
    for process in snapshot.processes:
        for thread in process.threads:
            check_speculation(thread.attributes.speculation)
    _check_externals(snapshot, inherited)


def holder(snapshot: Snapshot, file: ObjectId) -> str:
    """Say which process has an open file, and where: the first of all."""
    for process in snapshot.processes:
        if process.state is not None:
            who = f"{process.pid} ({process.name})"
            for one in snapshot.file_tables[process.state.files].descriptors:
                if one.file == file:
                    return f"{who}: fd {one.fd}"
            memory = snapshot.memories[process.state.memory]
            if memory.executable == file:
                return f"{who}: executable"
            for vma in memory.vmas:
                if vma.backing == "file" and vma.of == file:
                    return f"{who}: memory {vma.start:#x}"
    return f"open file {file}"


def _path_of(body: object) -> str | None:
    if isinstance(body, UnixAlone):
        return body.claims.where if body.claims is not None else None
    path = getattr(body, "path", None)
    return native_path(path) if isinstance(path, str) else None


def _check_machine(snapshot: Snapshot) -> None:
    machine = snapshot.machine
    if machine.vdso != vdso.digest():
        raise CannotHonour(
            f"the image was made on kernel {machine.kernel}, whose vDSO is not that of {os.uname().release}",
            hint="restore under the same kernel",
        )
    if machine.xstate_bytes > own_xstate_bytes():
        raise CannotHonour(
            f"the image holds {machine.xstate_bytes} bytes of extended registers a thread, this processor has "
            f"{own_xstate_bytes()}",
            hint="restore on a processor with the same or more features",
        )


def _check_pids(snapshot: Snapshot) -> None:
    """Raise PidTaken if the PIDs must be those of the host and one is in use."""
    for process in snapshot.processes:
        for tid in [process.pid, *(thread.tid for thread in process.threads)]:
            try:
                name = read_file(f"/proc/{tid}/comm").decode(errors="replace").strip()
            except (FileNotFoundError, ProcessLookupError):
                continue
            raise PidTaken(
                f"process id {tid} is taken by {name}", hint="restore into a new PID namespace, which is the default"
            )


_ACCESS = {os.O_RDONLY: "reading", os.O_WRONLY: "writing", os.O_RDWR: "reading and writing"}


def _misfit(file: OpenFile, fd: int) -> str:
    """Say why a descriptor of ours cannot take the place of a file from outside; "" if it can."""
    key = file.body.key
    status = os.fstat(fd)
    is_directory = stat.S_ISDIR(status.st_mode)
    found = describe_type(status.st_mode)
    if key.startswith("socket[") and not stat.S_ISSOCK(status.st_mode):
        return f"it is {found}, not a socket"
    if key.startswith("tty[") and not os.isatty(fd):
        return f"it is {found}, not a terminal"
    if is_directory != bool(file.flags & os.O_DIRECTORY):
        return "it is a directory" if is_directory else f"it is {found}, not a directory"
    # Standard streams are what the caller has: 2>FILE for what was a terminal.
    have, wanted = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE, file.flags & os.O_ACCMODE
    if not key.startswith("stdio[") and not file.flags & os.O_PATH and have not in (wanted, os.O_RDWR):
        return f"it is open for {_ACCESS[have]} only, and the job's was for {_ACCESS[wanted]}"
    return ""


def _check_externals(snapshot: Snapshot, inherited: Mapping[str, int]) -> None:
    wanted = {file.body.key for file in snapshot.files if isinstance(file.body, External)}
    for key in sorted(wanted - inherited.keys()):
        or_here = ", or restore in the foreground of a terminal" if key.startswith("tty[") else ""
        raise CannotHonour(
            f"the job had {key} from outside, and nothing takes its place",
            hint=f"give it a descriptor of orch: --inherit '{key}=3' 3<>FILE{or_here}",
        )
    for file in snapshot.files:
        if isinstance(file.body, External) and (why := _misfit(file, inherited[file.body.key])):
            key = file.body.key
            raise CannotHonour(
                f"{holder(snapshot, file.id)}: --inherit {key}={inherited[key]} does not fit: {why}",
                hint="give it what the job can use as it used the old one",
            )
    wanted |= {record.key for record in snapshot.objects if isinstance(record, OutsideTerminal)}
    unused = sorted(key for key in inherited.keys() - wanted if not key.startswith("stdio["))
    if unused:
        raise CannotHonour(
            f"--inherit {unused[0]} matches nothing in the image", hint="'orch show' lists the outside resources"
        )
