"""Rebuild Unix sockets that are not paired in the depot: first bind them all, then fill and connect them."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping

from orchestrator.ids import DepotFd, ObjectId
from orchestrator.kinds.files.kind import Depot, OpenFile, Settling
from orchestrator.kinds.files.reopening import set_status
from orchestrator.kinds.sockets.options import write_buffers, write_dress, write_filtering
from orchestrator.kinds.sockets.unix_creator import write_connect, write_listen
from orchestrator.kinds.sockets.unix_name import UnixName, sockaddr_un
from orchestrator.kinds.sockets.unix_pair import SHUTDOWN_HOW
from orchestrator.kinds.sockets.unix_place import open_home, reaching, write_bind
from orchestrator.kinds.sockets.unix_records import UnixAlone, UnixPairEnd, UnixSocket
from orchestrator.kinds.sockets.unix_send import widen, write_send
from orchestrator.kinds.sockets.unix_waiting import write_call


def rebuild_alone(file: OpenFile, depot: Depot) -> None:
    """Write the tape entries that make a socket, up to where others can reach it."""
    body: UnixAlone = file.body
    _make_socket(depot, body.object, depot.objects[body.object], depot.slot(file.id))
    set_status(depot.tape, depot.slot(file.id), file.flags)


def connect_alone(file: OpenFile, depot: Depot) -> None:
    """Write the tape entries that fill and connect all of them, with the first: when all open files are there."""
    alone = [depot.files[number] for number in sorted(depot.files) if isinstance(depot.files[number].body, UnixAlone)]
    if file.id != alone[0].id:
        return
    sockets = {one.body.object: (depot.objects[one.body.object], depot.slot(one.id)) for one in alone}
    for socket_id, (record, standing) in sockets.items():
        # A connected socket takes messages from its target alone.
        if record.queue and record.name is not None:
            _deliver(depot, socket_id, record)
            write_filtering(depot.tape, standing, record.options)
    for socket_id in callers_first({one: record for one, (record, _) in sockets.items()}):
        if not _is_in_queue(depot, sockets[socket_id][0]):
            _connect_socket(depot, socket_id, *sockets[socket_id])
        _call_waiting(depot, socket_id, sockets)
    for record, standing in sockets.values():
        if record.name is None:
            if record.queue:
                _deliver_unnamed(depot, record, sockets)
            # Asking for credentials (SO_PASSCRED) gives a socket a name when it connects.
            write_dress(depot.tape, standing, record.options, record.owner)


def callers_first(sockets: Mapping[ObjectId, UnixSocket]) -> list[ObjectId]:
    """Put whoever is connected to another before that one, which may be closed to all but its own target.

    Clients that wait at a listener are in the order of its queue.
    """
    callers: dict[ObjectId, list[ObjectId]] = {}
    for number, record in sockets.items():
        if record.target is not None:
            callers.setdefault(record.target, []).append(number)
    ordered: list[ObjectId] = []
    begun: set[ObjectId] = set()
    stack = [(number, False) for number in reversed(list(sockets))]
    while stack:
        number, done = stack.pop()
        if done:
            ordered.append(number)
        elif number not in begun:
            begun.add(number)
            stack.append((number, True))
            stack += [(caller, False) for caller in callers.get(number, ())]
    places = {number: at for at, number in enumerate(ordered)}
    for record in sockets.values():
        for at, client in zip(sorted(places[one] for one in record.clients), record.clients, strict=True):
            ordered[at] = client
    return ordered


def settle_alone(file: OpenFile, settling: Settling) -> None:
    """Shut down what was: until now it may have been needed to send."""
    record: UnixSocket = settling.objects[file.body.object]
    if settling.first and record.shutdown:
        settling.tape.shutdown(settling.fd, SHUTDOWN_HOW[record.shutdown])


def _make_socket(depot: Depot, socket_id: ObjectId, record: UnixSocket, standing: DepotFd) -> None:
    tape = depot.tape
    open_home(depot)
    if record.style == socket.SOCK_DGRAM and record.sibling is not None:
        _make_siblings(depot, record.sibling, standing)
    elif not (record.style == socket.SOCK_DGRAM and _is_sibling(depot, socket_id)):
        tape.socket(socket.AF_UNIX, record.style | socket.SOCK_CLOEXEC, 0)
        depot.keep(0, standing)
    if record.name is not None:
        write_bind(depot, standing, record.name, _room(socket_id))
        write_dress(tape, standing, record.options, record.owner, filtering=not record.queue)
    if record.backlog >= 0:
        write_listen(depot, standing, record.backlog, record.own)


def _is_sibling(depot: Depot, socket_id: ObjectId) -> bool:
    return any(isinstance(one, UnixSocket) and one.sibling == socket_id for one in depot.objects)


def _make_siblings(depot: Depot, other: ObjectId, standing: DepotFd) -> None:
    """Make a socket and the nameless one that it is connected to, which is then connected elsewhere."""
    tape = depot.tape
    (file,) = depot.users(other)
    tape.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0, tape.space(8))
    depot.keep(1, depot.slot(file.id))
    depot.keep(0, standing)


def _connect_socket(depot: Depot, socket_id: ObjectId, record: UnixSocket, standing: DepotFd) -> None:
    tape = depot.tape
    if record.target is not None and record.sibling is None:
        target: UnixSocket = depot.objects[record.target]
        assert target.name is not None
        with reaching(depot, target.name, _room(record.target)) as to:
            if record.own is not None and target.backlog >= 0:
                write_connect(depot, standing, to, record.own)
            else:
                depot.tape.connect(standing, to, len(to))
    elif record.outside:
        to = sockaddr_un(record.outside)
        tape.connect(standing, to, len(to))
    elif record.lost:
        room = f"lost{socket_id}"
        tape.socket(socket.AF_UNIX, record.style | socket.SOCK_CLOEXEC, 0)
        write_bind(depot, 0, UnixName(record.lost), room)
        _connect(depot, standing, UnixName(record.lost), room)
        tape.close(0)
    elif record.target is None and _is_sibling(depot, socket_id):
        nowhere = struct.pack("=H", socket.AF_UNSPEC)
        tape.connect(standing, nowhere, len(nowhere))


def _is_in_queue(depot: Depot, record: UnixSocket) -> bool:
    """Whether the listener that a socket waits at has a queue that is filled as a whole."""
    return record.target is not None and bool(depot.objects[record.target].waiting)


def _call_waiting(depot: Depot, socket_id: ObjectId, sockets: Mapping[ObjectId, tuple[UnixSocket, DepotFd]]) -> None:
    """Let all connect again that wait at a listener, in their order, with what they had sent."""
    tape, record = depot.tape, sockets[socket_id][0]
    for waiting in record.waiting:
        known = sockets.get(waiting.client)
        assert record.name is not None
        if known is None:
            tape.socket(socket.AF_UNIX, record.style | socket.SOCK_CLOEXEC, 0)
        fd = 0 if known is None else known[1]
        own = None if known is None else known[0].own
        with reaching(depot, record.name, _room(socket_id)) as to:
            write_call(depot, fd, to, waiting, 0 if own is None else own.pid)
        if known is None:
            tape.close(0)
        else:
            write_buffers(tape, known[1], known[0].options)


def _deliver_unnamed(depot: Depot, record: UnixSocket, sockets: Mapping[ObjectId, tuple[UnixSocket, DepotFd]]) -> None:
    """Send again what came from the one socket that is connected to a nameless one."""
    for other, standing in sockets.values():
        if other.sibling is not None and depot.objects[other.sibling] is record:
            widen(depot.tape, standing, record.queue)
            for message in record.queue:
                write_send(depot, standing, message)


def _connect(depot: Depot, fd: int, name: UnixName, room: str) -> None:
    with reaching(depot, name, room) as to:
        depot.tape.connect(fd, to, len(to))


def _room(socket_id: ObjectId) -> str:
    return f"socket{socket_id}"


def _deliver(depot: Depot, socket_id: ObjectId, record: UnixSocket) -> None:
    """Send a datagram socket its messages again, each from a socket of the name that it came from."""
    assert record.name is not None
    senders = _datagram_sockets(depot)
    for number, message in enumerate(record.queue):
        known = senders.get(message.source)
        if known is not None:
            sender: int = known
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


def _datagram_sockets(depot: Depot) -> dict[bytes, DepotFd]:
    """Return the standing numbers of all datagram sockets that have names, by their addresses."""
    found = {}
    for file in depot.files.values():
        if isinstance(file.body, UnixAlone) and file.body.style == socket.SOCK_DGRAM:
            name = file.body.claims
        elif isinstance(file.body, UnixPairEnd):
            end = depot.objects[file.body.object].ends[file.body.end]
            name = end.name
        else:
            continue
        if name is not None:
            found[name.address] = depot.slot(file.id)
    return found
