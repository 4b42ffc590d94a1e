"""Open every file of an image once, hand out the descriptors, and finish what only their owners can.

The order of a restore: :func:`rebuild_depot` in the first process; forks; :func:`place_table`, then
:func:`settle_table` in one task of each table, with all tasks there; :func:`leave_depot`; last
:func:`lock_table`.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from orchestrator.errors import RestoreError
from orchestrator.ids import HostPid, ObjectId, Pid
from orchestrator.kinds.files.epoll import EventPoll
from orchestrator.kinds.files.kind import O_CLOEXEC, Depot, FileTable, OpenFile, Settling
from orchestrator.kinds.files.locks import take_file_locks, take_leases, take_posix_locks
from orchestrator.kinds.files.owner import tell_owner
from orchestrator.kinds.files.registry import kind_of
from orchestrator.kinds.files.regular import NamedFile, check_unchanged
from orchestrator.kinds.files.slots import Slots
from orchestrator.kinds.record import native_path
from orchestrator.linux.pidfd import pidfd_getfd, pidfd_open
from orchestrator.tape.build import Tape

_WRITE_ACCESS = 3  # O_WRONLY | O_RDWR


def claims(tables: Iterable[FileTable], files: Iterable[OpenFile]) -> Iterator[tuple[int, ObjectId]]:
    """Yield every descriptor of the job, and what its epolls remember: number and open file."""
    for table in tables:
        yield from ((descriptor.fd, descriptor.file) for descriptor in table.descriptors)
    for file in files:
        if isinstance(file.body, EventPoll):
            yield from ((entry.fd, entry.file) for entry in file.body.registrations)


def check_files(
    files: Sequence[OpenFile],
    is_rebuilt: Callable[[OpenFile], bool] = lambda _: False,
    holder: Callable[[OpenFile], str] = lambda file: f"open file {file.id}",
) -> None:
    """Check, before anything is restored, that what the files need is here. Raises RestoreErrors.

    ``is_rebuilt`` says of a file that it lies in a mount or needs a namespace that the restore makes. ``holder``
    says, for messages, who has it.
    """
    files = [file for file in files if not is_rebuilt(file)]
    written = {file.body.path for file in files if isinstance(file.body, NamedFile) and file.flags & _WRITE_ACCESS}
    for file in files:
        check = kind_of(file).check
        try:
            if check is not None:
                check(file)
            if isinstance(file.body, NamedFile) and file.body.path not in written:
                check_unchanged(file)
        except RestoreError as error:
            raise type(error)(f"{holder(file)}: {error.message}", hint=error.hint) from error


def flock_takers(files: Iterable[OpenFile], placers: Collection[Pid]) -> dict[ObjectId, Pid]:
    """Say for open files with a lock of flock(2) which process takes it; the depot takes all others.

    The kernel shows who took a lock. ``placers``: the processes that place a table themselves.
    """
    return {
        file.id: Pid(lock.taker) for file in files for lock in file.locks if lock.whole and Pid(lock.taker) in placers
    }


def rebuild_depot(files: Sequence[OpenFile], depot: Depot, takers: Collection[ObjectId] = ()) -> None:
    """Write the tape entries that open every file, in a process without low descriptors.

    ``takers``: the files whose locks of flock(2) somebody else takes.
    """
    ordered = sorted(files, key=lambda file: (kind_of(file).order, file.id))
    for file in ordered:
        kind_of(file).rebuild(file, depot)
    # What can still be written through another descriptor cannot be a process's executable.
    depot.close_extras("file")
    for file in ordered:
        connect = kind_of(file).connect
        if connect is not None:
            connect(file, depot)
        locks = [lock for lock in file.locks if not (lock.whole and file.id in takers)]
        take_file_locks(depot.tape, depot.slot(file.id), locks)


def finish_depot(files: Iterable[OpenFile], depot: Depot, first: HostPid) -> None:
    """Do from outside what is left to do once everything is open in the depot, which is process ``first``."""
    late = [(kind_of(file).finish, file) for file in files]
    if not any(finish for finish, _ in late):
        return
    pidfd = pidfd_open(first)
    try:
        for finish, file in late:
            if finish is not None:
                fd = pidfd_getfd(pidfd, depot.slot(file.id))
                try:
                    finish(file, fd, depot.objects, first)
                finally:
                    os.close(fd)
    finally:
        os.close(pidfd)


def place_table(table: FileTable, tape: Tape, slots: Slots) -> None:
    """Give a task the descriptors it had, from the depot's that it inherited."""
    for descriptor in table.descriptors:
        standing = slots.of(descriptor.file)
        if standing != descriptor.fd:
            tape.dup3(standing, descriptor.fd, O_CLOEXEC if descriptor.cloexec else 0)
        elif not descriptor.cloexec:
            tape.fcntl(standing, fcntl.F_SETFD, 0)


def leave_depot(table: FileTable, tape: Tape, slots: Slots) -> None:
    """Close what a task has inherited of the depot and does not keep."""
    slots.close_all_but(tape, sorted(descriptor.fd for descriptor in table.descriptors))


def take_own_flocks(
    tape: Tape, pid: Pid, files: Mapping[ObjectId, OpenFile], takers: Mapping[ObjectId, Pid], slots: Slots
) -> None:
    """Take the locks of flock(2) that a process took, whether it still has the file or not."""
    for id_, taker in takers.items():
        if taker == pid:
            take_file_locks(tape, slots.of(id_), [lock for lock in files[id_].locks if lock.whole])


def first_holders(tables: Iterable[FileTable]) -> dict[ObjectId, tuple[ObjectId, int]]:
    """Say for each open file which table, and which number there, does what is done once."""
    first: dict[ObjectId, tuple[ObjectId, int]] = {}
    for table in tables:
        for descriptor in table.descriptors:
            first.setdefault(descriptor.file, (table.id, descriptor.fd))
    return first


def settle_table(
    table: FileTable,
    tape: Tape,
    slots: Slots,
    files: Mapping[ObjectId, OpenFile],
    objects: list[Any],
    first: Mapping[ObjectId, tuple[ObjectId, int]],
    handed_round: Collection[ObjectId] = (),
) -> None:
    """Finish the files of a table in a task that has it, when all tasks are there. ``first``: first_holders()."""
    numbers = {descriptor.fd: descriptor.file for descriptor in table.descriptors}
    free = slots.lowest_free(numbers)
    ordered = sorted(table.descriptors, key=lambda one: (kind_of(files[one.file]).order, one.fd))
    for descriptor in ordered:
        file = files[descriptor.file]
        is_first = first[file.id] == (table.id, descriptor.fd)
        settle = kind_of(file).settle
        if settle is not None:
            settle(
                file,
                Settling(
                    tape,
                    descriptor.fd,
                    files,
                    objects,
                    slots.of,
                    descriptor.cloexec,
                    is_first,
                    free,
                    numbers,
                    handed_round,
                ),
            )
        if is_first:
            take_leases(tape, descriptor.fd, file.locks, _way_to(file, descriptor.fd))
            tell_owner(tape, descriptor.fd, file)


def _way_to(file: OpenFile, fd: int) -> str:
    if isinstance(file.body, NamedFile) and file.body.handle is None:
        return native_path(file.body.path)
    return f"/proc/self/fd/{fd}"


def lock_table(table: FileTable, tape: Tape) -> None:
    """Take the locks that belong to a table; after the task has closed the depot's descriptors."""
    take_posix_locks(tape, table.locks)
