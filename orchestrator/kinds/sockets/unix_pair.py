"""Rebuild pairs of Unix sockets in the depot: first make both ends, then fill their queues."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from orchestrator.ids import DepotFd, ObjectId
from orchestrator.kinds.files.kind import Depot, OpenFile
from orchestrator.kinds.files.reopening import set_status
from orchestrator.kinds.sockets.option_table import SOL_SOCKET
from orchestrator.kinds.sockets.options import set_int, write_dress
from orchestrator.kinds.sockets.unix_creator import write_connect, write_listen, write_socketpair
from orchestrator.kinds.sockets.unix_name import UnixName
from orchestrator.kinds.sockets.unix_place import open_home, reaching, write_bind
from orchestrator.kinds.sockets.unix_queue import Message
from orchestrator.kinds.sockets.unix_records import UnixPair
from orchestrator.kinds.sockets.unix_send import widen, write_send

SHUTDOWN_HOW = {1: socket.SHUT_RD, 2: socket.SHUT_WR, 3: socket.SHUT_RDWR}
"""From RCV_SHUTDOWN | SEND_SHUTDOWN to what shutdown(2) takes."""


def rebuild_pair(file: OpenFile, depot: Depot) -> None:
    """Write the tape entries that make both ends, with the first of their open files."""
    pair_id: ObjectId = file.body.object
    users = depot.users(pair_id)
    if users[0].id == file.id:
        _make_pair(depot, pair_id, depot.objects[pair_id], users)


def connect_pair(file: OpenFile, depot: Depot) -> None:
    """Write the tape entries that fill both queues, when all open files are there: some may be in a queue."""
    pair_id: ObjectId = file.body.object
    if depot.users(pair_id)[0].id == file.id:
        _fill_pair(depot, pair_id, depot.objects[pair_id])


def _make_pair(depot: Depot, pair_id: ObjectId, pair: UnixPair, users: Sequence[OpenFile]) -> None:
    tape = depot.tape
    closed = pair.closed_end
    maker = pair.open_end[1].peer
    if pair.style == socket.SOCK_DGRAM:
        open_home(depot)
        write_socketpair(depot, pair.style, maker)
        for number, end in enumerate(pair.ends):
            if end is not None and end.name is not None:
                write_bind(depot, number, end.name, f"pair{pair_id}-{number}")
    elif pair.lost_address or any(end is not None and end.address for end in pair.ends):
        _meet(depot, f"pair{pair_id}", pair)
    else:
        write_socketpair(depot, pair.style, maker)
    for file in users:
        set_status(tape, file.body.end, file.flags)
    if closed is not None:
        depot.keep(closed, depot.extra("unix-closing", pair_id)[0])
    for number, standing in _standing(depot, pair_id).items():
        depot.keep(number, standing)


def _standing(depot: Depot, pair_id: ObjectId) -> dict[int, DepotFd]:
    """Return the standing numbers of a pair's ends that are open."""
    return {file.body.end: depot.slot(file.id) for file in depot.users(pair_id)}


def _meet(depot: Depot, room: str, pair: UnixPair) -> None:
    """Connect two sockets, one or both of which have names, through a listener that lives for this alone.

    They end up as descriptors 0 and 1. Each sees the other's maker in SO_PEERCRED.
    """
    tape = depot.tape
    addresses = [end.address if end else pair.lost_address for end in pair.ends]
    accepted = [end is not None and end.accepted for end in pair.ends]
    accepted_first = not addresses[1] or (bool(addresses[0]) and not accepted[1])
    peers = [end.peer if end else None for end in pair.ends]
    server, client = addresses if accepted_first else reversed(addresses)
    server_sees, client_sees = peers if accepted_first else reversed(peers)
    style = pair.style | socket.SOCK_CLOEXEC
    open_home(depot)
    tape.socket(socket.AF_UNIX, style, 0)
    tape.socket(socket.AF_UNIX, style, 0)
    write_bind(depot, 0, UnixName(server), room)
    write_listen(depot, 0, 1, client_sees)
    if client:
        write_bind(depot, 1, UnixName(client), f"{room}-client")
    with reaching(depot, UnixName(server), room) as to:
        write_connect(depot, 1, to, server_sees)
    tape.accept4(0, 0, 0, socket.SOCK_CLOEXEC)
    tape.dup3(2 if accepted_first else 1, 0, socket.SOCK_CLOEXEC)
    if not accepted_first:
        tape.dup3(2, 1, socket.SOCK_CLOEXEC)
    tape.close(2)


def _fill_pair(depot: Depot, pair_id: ObjectId, pair: UnixPair) -> None:
    tape = depot.tape
    standing = _standing(depot, pair_id)
    closed = pair.closed_end
    if closed is not None:
        standing[closed] = depot.extra("unix-closing", pair_id)[0]
    for number, end in enumerate(pair.ends):
        if end is not None and end.queue:
            _fill(depot, standing[number], standing[1 - number], end.queue)
    if pair.reset:
        tape.sendto(standing[pair.open_end[0]], b"\0", 1, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, 0, 0)
    if closed is not None:
        tape.close(standing[closed])
    for number, end in enumerate(pair.ends):
        if end is not None:
            if end.shutdown:
                tape.shutdown(standing[number], SHUTDOWN_HOW[end.shutdown])
            write_dress(tape, standing[number], end.options, end.owner)


def _fill(depot: Depot, fd: int, sender: int, queue: Sequence[Message]) -> None:
    tape = depot.tape
    widen(tape, sender, queue)
    wants_credentials = any(message.credentials for message in queue)
    if wants_credentials:
        set_int(tape, fd, SOL_SOCKET, socket.SO_PASSCRED, 1)
    for message in queue:
        write_send(depot, sender, message)
    if wants_credentials:
        # Set while it sends, it would give the other end a name.
        set_int(tape, fd, SOL_SOCKET, socket.SO_PASSCRED, 0)
