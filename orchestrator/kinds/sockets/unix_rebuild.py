"""Rebuild Unix sockets in the depot: first make them all, then fill and connect them."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from orchestrator.ids import DepotFd, ObjectId
from orchestrator.kinds.files.kind import Depot, OpenFile, Settling
from orchestrator.kinds.files.reopening import set_status
from orchestrator.kinds.sockets.options import SOL_SOCKET, SocketOptions, set_int, write_buffers, write_options
from orchestrator.kinds.sockets.unix_name import UnixName, sockaddr_un
from orchestrator.kinds.sockets.unix_place import open_home, reaching, write_bind
from orchestrator.kinds.sockets.unix_queue import Message
from orchestrator.kinds.sockets.unix_records import UnixFile, UnixPair, UnixSocket
from orchestrator.kinds.sockets.unix_send import acting_as, widen, write_send

_HOW = {1: socket.SHUT_RD, 2: socket.SHUT_WR, 3: socket.SHUT_RDWR}


def rebuild_unix(file: OpenFile, depot: Depot) -> None:
    """Write the tape entries that make a Unix socket; those of a pair are made together."""
    body: UnixFile = file.body
    record = depot.objects[body.object]
    if isinstance(record, UnixPair):
        users = depot.users(body.object)
        if users[0].id == file.id:
            _make_pair(depot, body.object, record, users)
    else:
        _make_socket(depot, body.object, record, depot.slot(file.id))
        set_status(depot.tape, depot.slot(file.id), file.flags)


def connect_unix(file: OpenFile, depot: Depot) -> None:
    """Write the tape entries that fill and connect it, when all open files are there."""
    body: UnixFile = file.body
    record = depot.objects[body.object]
    if isinstance(record, UnixPair):
        if depot.users(body.object)[0].id == file.id:
            _fill_pair(depot, body.object, record)
    else:
        _connect_socket(depot, body.object, record, depot.slot(file.id))


def settle_unix(file: OpenFile, settling: Settling) -> None:
    """Shut down what was: until now it may have been needed to send."""
    record = settling.objects[file.body.object]
    if settling.first and isinstance(record, UnixSocket) and record.shutdown:
        settling.tape.shutdown(settling.fd, _HOW[record.shutdown])


def _make_pair(depot: Depot, pair_id: ObjectId, pair: UnixPair, users: Sequence[OpenFile]) -> None:
    tape = depot.tape
    here, there = pair.ends
    assert here is not None
    if here.address or (there.address if there else pair.lost_address):
        _meet(depot, f"pair{pair_id}", pair)
    else:
        with acting_as(tape, here.peer):
            tape.socketpair(socket.AF_UNIX, pair.style | socket.SOCK_CLOEXEC, 0, tape.space(8))
    for file in users:
        set_status(tape, file.body.end, file.flags)
    if there is None:
        depot.keep(1, depot.extra("unix-closing", pair_id)[0])
    for number, standing in _standing(depot, pair_id).items():
        depot.keep(number, standing)


def _standing(depot: Depot, pair_id: ObjectId) -> dict[int, DepotFd]:
    """Return the standing numbers of a pair's ends that are open."""
    return {file.body.end: depot.slot(file.id) for file in depot.users(pair_id)}


def _meet(depot: Depot, room: str, pair: UnixPair) -> None:
    """Connect two sockets, one or both of which have names, through a listener that lives for this alone.

    They end up as descriptors 0 and 1. Each sees the other's uid and gid in SO_PEERCRED.
    """
    tape = depot.tape
    here, there = pair.ends
    assert here is not None
    there_address, there_peer = (there.address, there.peer) if there else (pair.lost_address, None)
    accepted_first = bool(here.address)
    server, client = (here.address, there_address) if accepted_first else (there_address, here.address)
    server_sees, client_sees = (here.peer, there_peer) if accepted_first else (there_peer, here.peer)
    style = pair.style | socket.SOCK_CLOEXEC
    open_home(depot)
    tape.socket(socket.AF_UNIX, style, 0)
    tape.socket(socket.AF_UNIX, style, 0)
    write_bind(depot, 0, UnixName(server), room)
    with acting_as(tape, client_sees):
        tape.listen(0, 1)
    if client:
        write_bind(depot, 1, UnixName(client), f"{room}-client")
    with reaching(depot, UnixName(server), room) as to, acting_as(tape, server_sees):
        tape.connect(1, to, len(to))
    tape.accept4(0, 0, 0, socket.SOCK_CLOEXEC)
    tape.dup3(2 if accepted_first else 1, 0, socket.SOCK_CLOEXEC)
    if not accepted_first:
        tape.dup3(2, 1, socket.SOCK_CLOEXEC)
    tape.close(2)


def _fill_pair(depot: Depot, pair_id: ObjectId, pair: UnixPair) -> None:
    tape = depot.tape
    standing = _standing(depot, pair_id)
    lost = pair.ends[1] is None
    if lost:
        standing[1] = depot.extra("unix-closing", pair_id)[0]
    for number, end in enumerate(pair.ends):
        if end is not None and end.queue:
            _fill(depot, standing[number], standing[1 - number], end.queue)
    if pair.reset:
        tape.sendto(standing[0], b"\0", 1, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, 0, 0)
    if lost:
        tape.close(standing[1])
    for number, end in enumerate(pair.ends):
        if end is not None:
            if end.shutdown:
                tape.shutdown(standing[number], _HOW[end.shutdown])
            _dress(depot, standing[number], end.options, end.owner)


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


def _dress(depot: Depot, fd: int, options: SocketOptions, owner: tuple[int, int]) -> None:
    write_buffers(depot.tape, fd, options)
    write_options(depot.tape, fd, options)
    if owner != (0, 0):
        depot.tape.fchown(fd, *owner)


def _make_socket(depot: Depot, socket_id: ObjectId, record: UnixSocket, standing: DepotFd) -> None:
    """Make a socket that is not one of a pair, up to where others can reach it."""
    tape = depot.tape
    open_home(depot)
    tape.socket(socket.AF_UNIX, record.style | socket.SOCK_CLOEXEC, 0)
    depot.keep(0, standing)
    if record.name is not None:
        write_bind(depot, standing, record.name, _room(socket_id))
        _dress(depot, standing, record.options, record.owner)
    if record.backlog >= 0:
        with acting_as(tape, record.own):
            tape.listen(standing, record.backlog)


def _connect_socket(depot: Depot, socket_id: ObjectId, record: UnixSocket, standing: DepotFd) -> None:
    """Fill first: a connected socket takes messages from its target alone."""
    tape = depot.tape
    if record.queue:
        _deliver(depot, socket_id, record)
    if record.target is not None:
        target: UnixSocket = depot.objects[record.target]
        assert target.name is not None
        _connect(depot, standing, target.name, _room(record.target))
    elif record.outside:
        to = sockaddr_un(record.outside)
        tape.connect(standing, to, len(to))
    elif record.lost:
        room = f"lost{socket_id}"
        tape.socket(socket.AF_UNIX, record.style | socket.SOCK_CLOEXEC, 0)
        write_bind(depot, 0, UnixName(record.lost), room)
        _connect(depot, standing, UnixName(record.lost), room)
        tape.close(0)
    if record.name is None:
        # Asking for credentials (SO_PASSCRED) gives a socket a name when it connects.
        _dress(depot, standing, record.options, record.owner)


def _connect(depot: Depot, fd: int, name: UnixName, room: str) -> None:
    with reaching(depot, name, room) as to:
        depot.tape.connect(fd, to, len(to))


def _room(socket_id: ObjectId) -> str:
    return f"socket{socket_id}"


def _deliver(depot: Depot, socket_id: ObjectId, record: UnixSocket) -> None:
    """Send a datagram socket its messages again, each from a socket of the name that it came from."""
    assert record.name is not None
    senders = {
        other.name.address: ObjectId(number)
        for number, other in enumerate(depot.objects)
        if isinstance(other, UnixSocket) and other.style == socket.SOCK_DGRAM and other.name
    }
    for number, message in enumerate(record.queue):
        known = senders.get(message.source)
        if known is not None:
            sender: int = depot.slot(depot.users(known)[0].id)
        else:
            depot.tape.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
            sender = 0
            if message.source:
                write_bind(depot, 0, UnixName(message.source), f"sender{socket_id}-{number}")
            widen(depot.tape, 0, [message])
        with reaching(depot, record.name, _room(socket_id)) as to:
            write_send(depot, sender, message, to)
        if known is None:
            depot.tape.close(0)
