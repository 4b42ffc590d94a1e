"""Unix sockets: pairs, listeners and their clients, datagrams; unnamed, abstract and with files."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Sequence
from typing import Any

from orchestrator.errors import FileMissing, ResourceTaken
from orchestrator.ids import ObjectId, Pid
from orchestrator.kinds.files.kind import FdView, FileKind, OpenFile
from orchestrator.kinds.sockets.borrow import is_socket
from orchestrator.kinds.sockets.holders import socket_holders
from orchestrator.kinds.sockets.unix_alone import connect_alone, rebuild_alone, settle_alone
from orchestrator.kinds.sockets.unix_capture import capture_unix
from orchestrator.kinds.sockets.unix_name import UnixName
from orchestrator.kinds.sockets.unix_pair import connect_pair, rebuild_pair
from orchestrator.kinds.sockets.unix_records import UnixAlone, UnixPair, UnixPairEnd, UnixSocket
from orchestrator.linux import sockdiag


def _recognise(view: FdView) -> bool:
    return is_socket(view, socket.AF_UNIX)


def check_unix(file: OpenFile) -> None:
    """Raise ResourceTaken if the name that a socket will bind belongs to somebody else."""
    body: UnixAlone = file.body
    name = body.claims
    if name is None:
        return
    if name.address.startswith(b"\0"):
        if _bound(name.address, body.style):
            raise ResourceTaken(
                f"the abstract socket name {name.shown} is taken{_holder(name)}",
                hint="end that process, or restore into a network namespace of its own (--new net)",
            )
        return
    if name.where is None:
        return
    try:
        status = os.lstat(name.where)
    except FileNotFoundError:
        directory = os.path.dirname(name.where)
        if not os.path.isdir(directory):
            raise FileMissing(
                f"the directory of the socket {name.where} is gone", hint=f"mkdir -p {directory}"
            ) from None
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise ResourceTaken(f"{name.where}, where a socket was bound, is now another kind of file", hint="move it away")
    if _answers(os.fsencode(name.where)):
        raise ResourceTaken(
            f"the socket {name.where} is in use{_holder(name)}", hint="end that process, then restore again"
        )


def _bound(address: bytes, style: int) -> bool:
    """Whether an abstract name is taken; sockets of other types do not count."""
    with socket.socket(socket.AF_UNIX, style | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return True
            raise
    return False


def _answers(address: bytes) -> bool:
    """Whether a socket is bound to a file. A live one of another type is told by EPROTOTYPE, undisturbed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect(address)
        except OSError as error:
            return error.errno not in (errno.ECONNREFUSED, errno.ENOENT)
    return True


def _holder(name: UnixName) -> str:
    for diag in sockdiag.unix_sockets().values():
        if diag.name is not None and diag.name.rstrip(b"\0") == name.address.rstrip(b"\0"):
            found = socket_holders({diag.ino}).get(diag.ino)
            if found:
                return f" by process {found[0]} ({found[1]})"
    return ""


def _carried(file: OpenFile, objects: Sequence[Any]) -> list[ObjectId]:
    """Return the files that wait in a socket's queues."""
    record: UnixPair | UnixSocket = objects[file.body.object]
    queues = [record.queue] if isinstance(record, UnixSocket) else [end.queue for end in record.ends if end is not None]
    return [of for queue in queues for message in queue for of in message.files]


def _made_by(file: OpenFile, objects: Sequence[Any], pid: Pid) -> bool:
    """Whether all that tells of somebody in a pair of sockets tells of this process, and of root."""
    for end in objects[file.body.object].ends:
        if end is not None:
            if end.name is not None or end.address:
                return False
            named = [end.peer, *(message.credentials for message in end.queue)]
            if any(who is not None and (who.pid not in (0, pid) or who.uid or who.gid) for who in named):
                return False
    return not objects[file.body.object].lost_address and not _carried(file, objects)


UNIX_PAIR = FileKind(
    "connected Unix socket",
    UnixPairEnd,
    _recognise,
    capture_unix,
    rebuild_pair,
    connect=connect_pair,
    objects=(UnixPair,),
    others=_carried,
    may_open=_made_by,
    links="socket:",
)
UNIX_ALONE = FileKind(
    "Unix socket",
    UnixAlone,
    lambda _view: False,  # its records come from capture_unix() too
    capture_unix,
    rebuild_alone,
    settle=settle_alone,
    connect=connect_alone,
    objects=(UnixSocket,),
    check=check_unix,
    others=_carried,
    order=1,  # pairs borrow the names of listeners while they are made,
    links="socket:",
)
