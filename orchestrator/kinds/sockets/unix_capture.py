"""Capture Unix sockets: which are connected to which, and what waits in them."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from functools import partial

import msgspec

from orchestrator.ids import ObjectId, Pid
from orchestrator.kinds.files.kind import FdView
from orchestrator.kinds.scope import Scope
from orchestrator.kinds.sockets.borrow import peer_credentials, poll_now, unsent_bytes
from orchestrator.kinds.sockets.census import CUT_UNIX, Captured, Census, Leak
from orchestrator.kinds.sockets.options import capture_options
from orchestrator.kinds.sockets.refused import Refused
from orchestrator.kinds.sockets.unix_name import capture_name, own_address, peer_address, shown_address
from orchestrator.kinds.sockets.unix_queue import Credentials, Message, job_credentials, peek_queue, refuse_hidden
from orchestrator.kinds.sockets.unix_records import UnixAlone, UnixEnd, UnixPair, UnixPairEnd, UnixSocket, UnixWaiting
from orchestrator.kinds.sockets.unix_waiting import Acceptor, most_sent
from orchestrator.linux.sockdiag import TCP_ESTABLISHED, TCP_LISTEN, UnixDiag

_NOBODY = ObjectId(-1)
_MOST_SENT = 256 << 20


def capture_unix(view: FdView, scope: Scope) -> UnixPairEnd | UnixAlone | None:
    """Record a Unix socket of a held process."""
    census = Census.of(scope, view.pid)
    diag = census.unix.get(view.stat.st_ino)
    if diag is None:
        scope.unsupported(view.pid, view.what, "a Unix socket of another network namespace than the job's")
        return None
    try:
        return _Capture(view, view.sock, diag, scope, census).record()
    except Refused as refusal:
        _refuse(view, scope, diag, refusal)
        return None


def _refuse(view: FdView, scope: Scope, diag: UnixDiag, refusal: Refused) -> None:
    name = f" bound to {shown_address(diag.name.rstrip(chr(0).encode()))}" if diag.name else ""
    scope.unsupported(view.pid, view.what, f"a Unix socket{name}: {refusal.reason}", refusal.hint)


class _Capture:
    """The capture of one socket."""

    def __init__(self, view: FdView, sock: socket.socket, diag: UnixDiag, scope: Scope, census: Census) -> None:
        self.view = view
        self.sock = sock
        self.diag = diag
        self.scope = scope
        self.census = census

    def record(self) -> UnixPairEnd | UnixAlone:
        diag = self.diag
        if diag.state == TCP_LISTEN:
            return self._listener()
        if diag.peer is None:
            return self._alone()
        if diag.type == socket.SOCK_DGRAM:
            return self._datagram()
        if diag.state != TCP_ESTABLISHED:
            raise Refused(f"it is in state {diag.state}")
        if diag.ino in self.census.waiting:
            return self._waiting()
        return self._pair()

    def _captured(self, object_id: ObjectId) -> Captured:
        captured = Captured(self.view.pid, self.view.what, object_id)
        self.census.sockets[self.diag.ino] = captured
        return captured

    def _pair(self) -> UnixPairEnd:
        diag, other = self.diag, self.diag.peer or 0
        error = poll_now(self.sock.fileno(), 0) & select.POLLERR
        if error and (other or diag.type == socket.SOCK_DGRAM):
            raise Refused("an error waits in it to be reported")
        status = self.view.stat
        end = UnixEnd(
            diag.ino,
            own_address(self.sock),
            diag.shutdown,
            [],
            capture_options(self.sock),
            (status.st_uid, status.st_gid),
            self._credentials(lambda who: _change_end(self.scope, pair_id, number, peer=who)),
            (diag.type, diag.name) in self.census.listening,
            capture_name(self.sock, self.view.pid) if diag.type == socket.SOCK_DGRAM else None,
        )
        if other:
            number = int(diag.ino > other)
            pair_id = self.scope.object("unix-pair", min(diag.ino, other), lambda _: UnixPair(diag.type, (None, None)))
            captured = self._captured(pair_id)
            self.census.leaks.append(Leak(captured, diag.ino, other, partial(self._tie, pair_id)))
        else:
            number = 0
            lost = UnixPair(diag.type, (None, None), peer_address(self.sock), bool(error))
            pair_id = self.scope.object("unix-pair", diag.ino, lambda _: lost)
            self._captured(pair_id)
        pair = self.scope.objects[pair_id]
        assert isinstance(pair, UnixPair)
        ends = (pair.ends[0], end) if number else (end, pair.ends[1])
        self.scope.objects[pair_id] = msgspec.structs.replace(pair, ends=ends)
        sender = self.census.unix.get(other)
        sent = sender.wqueue if sender is not None and not (sender.name or diag.name) else 0
        self._look_later(lambda queue: _change_end(self.scope, pair_id, number, queue=queue), sent)
        return UnixPairEnd(pair_id, number)

    def _tie(self, pair_id: ObjectId, other: ObjectId | None) -> bool:
        """Judge a pair at the end of the capture: its other end is in the job too, or it may be cut."""
        if other is None:
            if CUT_UNIX not in self.scope.externals:
                return False
            name = self.census.unix[self.diag.peer or 0].name or b""
            address = name if name.startswith(b"\0") else name.rstrip(b"\0")
            pair = self.scope.objects[pair_id]
            assert isinstance(pair, UnixPair)
            self.scope.objects[pair_id] = msgspec.structs.replace(pair, lost_address=address)
        return True

    def _credentials(self, take: Callable[[Credentials], None]) -> Credentials | None:
        """Return whom SO_PEERCRED names; if it is nobody we see, ``take`` is told in the end who it was."""
        raw = peer_credentials(self.sock)
        found = job_credentials(self.scope, raw)
        if raw is not None and found is not None and not found.pid:
            name = Credentials(0, found.uid, found.gid)
            local = self.view.take_local(self.scope)
            self.census.creators.append((local, lambda pid: take(msgspec.structs.replace(name, pid=pid))))
        return found

    def _alone(self, **more: object) -> UnixAlone:
        status = self.view.stat
        record = UnixSocket(
            self.diag.ino,
            self.diag.type,
            capture_name(self.sock, self.view.pid),
            self.diag.shutdown,
            [],
            capture_options(self.sock),
            (status.st_uid, status.st_gid),
        )
        record = msgspec.structs.replace(record, **more)
        object_id = self.scope.object("unix-socket", self.diag.ino, lambda _: record)
        self._captured(object_id)
        if self.diag.type == socket.SOCK_DGRAM:
            self._look_later(lambda queue: _change(self.scope, object_id, queue=queue))
        return UnixAlone(object_id, self.diag.type, record.name)

    def _listener(self) -> UnixAlone:
        diag = self.diag
        may_cut = CUT_UNIX in self.scope.externals
        sent = [self._sent_by(client) for client in diag.icons]
        whole = diag.rqueue == len(diag.icons)
        closed = 0 in diag.icons
        if (not whole or (closed and not self.scope.ends)) and not may_cut:
            hint = f"--kill lets them be looked at, and --external {CUT_UNIX} lets a restored job do without them"
            raise Refused("clients connected to it and closed before they were accepted", hint)
        late = whole and self.scope.ends and any(sent)
        if late:
            self._judge_sent(sum(sent))
        own = self._credentials(lambda who: _change(self.scope, file.object, own=who))
        file = self._alone(backlog=diag.wqueue, own=own)
        captured = self.census.sockets[diag.ino]
        acceptor = Acceptor(self.view, self.scope) if late else None
        queue: list[UnixWaiting | None] = [
            None if acceptor is None else UnixWaiting(_NOBODY, room, acceptor.expect(room)) for room in sent
        ]
        clients: list[ObjectId] = []
        _change(self.scope, file.object, waiting=tuple(one for one in queue if one is not None))

        def resolve(place: int, found: ObjectId | None) -> bool:
            waiting = queue[place]
            if waiting is not None:
                queue[place] = None if found is None else msgspec.structs.replace(waiting, client=found)
                _change(self.scope, file.object, waiting=tuple(one for one in queue if one is not None))
            if found is not None:
                clients.append(found)
                _change(self.scope, file.object, clients=tuple(clients))
            return found is not None or may_cut

        for place, client in enumerate(diag.icons):
            if client:
                self.census.leaks.append(Leak(captured, diag.ino, client, partial(resolve, place)))
        return file

    def _sent_by(self, client: int) -> int:
        """Return how many bytes at most a client, by inode, has sent that waits to be accepted."""
        known = self.census.unix.get(client) if client else None
        return most_sent() if known is None else known.wqueue

    def _judge_sent(self, total: int) -> None:
        """Judge whether what was sent to a listener, before it accepts, can be sent again."""
        if total > _MOST_SENT:
            raise Refused("too many clients connected to it and closed before they were accepted")
        if self.diag.type != socket.SOCK_STREAM:
            raise Refused("messages wait at it, sent over connections that are not accepted yet")
        if self.view.info.get("scm_fds") != "0":
            raise Refused("descriptors wait at it, sent over connections that are not accepted yet")
        if self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED):
            raise Refused("data waits at it with credentials, sent over connections that are not accepted yet")

    def _waiting(self) -> UnixAlone:
        if unsent_bytes(self.sock.fileno()) and not self.scope.ends:
            raise Refused(
                "it sent data over a connection that is not accepted yet, where nobody can look at it",
                "--kill lets it be read, as the job ends",
            )
        status = self.view.stat
        # Who connected is taken to be who has it.
        own = Credentials(self.scope.pids.get(self.view.pid, Pid(0)), status.st_uid, status.st_gid)
        file = self._alone(own=own)
        self._await_target(file, self.census.waiting[self.diag.ino], lambda: False)
        return file

    def _datagram(self) -> UnixPairEnd | UnixAlone:
        diag = self.diag
        peer = self.census.unix.get(diag.peer) if diag.peer else None
        address = peer_address(self.sock)
        if peer is None:
            return self._alone(lost=address) if address else self._pair()
        if peer.peer == diag.ino != peer.ino and not self._has_more_callers(diag, peer):
            return self._pair()
        if not address:
            # They were made by socketpair(2), and the other end was then connected elsewhere.
            file = self._alone()
            self._await_target(file, peer.ino, lambda: False, sibling=True)
            return file
        file = self._alone()

        def by_name() -> bool:
            # Nothing but the address ties such a socket to one outside: it can be connected again.
            if not address.startswith((b"/", b"\0")):
                return False
            _change(self.scope, file.object, outside=address)
            return True

        self._await_target(file, peer.ino, by_name)
        return file

    def _has_more_callers(self, diag: UnixDiag, peer: UnixDiag) -> bool:
        """Whether others, too, are connected to one of two datagram sockets that are connected to each other."""
        return max(self.census.callers[diag.ino], self.census.callers[peer.ino]) > 1

    def _await_target(
        self, file: UnixAlone, target: int, otherwise: Callable[[], bool], *, sibling: bool = False
    ) -> None:
        """Put the target's object into the record once it is known."""

        def resolve(found: ObjectId | None) -> bool:
            if found is None:
                return otherwise()
            _change(self.scope, file.object, target=found, sibling=found if sibling else None)
            return True

        self.census.leaks.append(Leak(self.census.sockets[self.diag.ino], self.diag.ino, target, resolve))

    def _look_later(self, store: Callable[[list[Message]], None], sent: int = 0) -> None:
        """``sent``: the memory that what waits in it takes, if only the other end sends to it."""
        look = partial(_look, self.view, self.diag, self.scope, store, sent)
        if self.view.info.get("scm_fds") == "0":
            look()
        else:  # descriptors wait in it, or the kernel does not tell (before 5.13)
            self.census.queues.append(partial(_look_anew, self.view, look))


def _look_anew(view: FdView, look: Callable[[], None]) -> None:
    with view:
        look()


def _look(view: FdView, diag: UnixDiag, scope: Scope, store: Callable[[list[Message]], None], sent: int) -> None:
    """Look into a socket's queue; if descriptors wait there, when all tables of the job are known."""

    def adopt(fd: int) -> ObjectId:
        scope.closers.append(fd)  # others are compared with it to the end of the capture
        files = view.files
        file = files.adopt(fd, view.pid, f"a descriptor on its way through {view.what}") if files else None
        if file is None:
            raise Refused("a descriptor is on its way through it (SCM_RIGHTS) that cannot be saved")
        return file

    try:
        queue = peek_queue(view.sock, diag.type, scope, adopt)
        if sent and diag.type != socket.SOCK_STREAM:
            refuse_hidden(diag.type, queue, sent)
        if queue:
            store(queue)
    except Refused as refusal:
        _refuse(view, scope, diag, refusal)


def _change_end(scope: Scope, pair_id: ObjectId, number: int, **changes: object) -> None:
    pair = scope.objects[pair_id]
    assert isinstance(pair, UnixPair)
    end = pair.ends[number]
    assert end is not None
    end = msgspec.structs.replace(end, **changes)
    ends = (pair.ends[0], end) if number else (end, pair.ends[1])
    scope.objects[pair_id] = msgspec.structs.replace(pair, ends=ends)


def _change(scope: Scope, object_id: ObjectId, **changes: object) -> None:
    record = scope.objects[object_id]
    assert isinstance(record, UnixSocket)
    scope.objects[object_id] = msgspec.structs.replace(record, **changes)
