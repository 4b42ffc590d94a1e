"""The records of Unix sockets."""

from __future__ import annotations

from orchestrator.ids import ObjectId
from orchestrator.kinds.record import Record
from orchestrator.kinds.sockets.options import SocketOptions
from orchestrator.kinds.sockets.unix_name import UnixName
from orchestrator.kinds.sockets.unix_queue import Credentials, Message


class UnixPairEnd(Record, frozen=True, tag="unix-pair-end"):
    """An open file that is one end of a :class:`UnixPair`."""

    object: ObjectId
    end: int


class UnixAlone(Record, frozen=True, tag="unix-alone"):
    """An open file that is a :class:`UnixSocket`."""

    object: ObjectId
    style: int
    claims: UnixName | None
    """The name that it binds when it is rebuilt."""


class UnixEnd(Record, frozen=True):
    """One end of a pair."""

    ino: int
    address: bytes
    """What it is called by the other end: a listener's name for accepted ones, mostly empty."""
    shutdown: int
    """RCV_SHUTDOWN | SEND_SHUTDOWN."""
    queue: list[Message]
    options: SocketOptions
    owner: tuple[int, int]
    """uid and gid of the socket itself."""
    peer: Credentials | None
    """SO_PEERCRED at this end."""
    accepted: bool = False
    """Whether its address is that of a socket that listens still: it shares the name and does not hold it."""
    name: UnixName | None = None
    """Of a datagram socket: others can send to it by this."""


class UnixPair(Record, frozen=True, tag="unix-pair"):
    """Two Unix sockets that are connected to each other and to nothing else."""

    style: int
    """SOCK_*."""
    ends: tuple[UnixEnd | None, UnixEnd | None]
    """One is None if that end was closed."""
    lost_address: bytes = b""
    """The address of a closed end."""
    reset: bool = False
    """The closed end had not read everything: ECONNRESET waits to be reported."""

    @property
    def open_end(self) -> tuple[int, UnixEnd]:
        """One that is open, with its number."""
        for number, end in enumerate(self.ends):
            if end is not None:
                return number, end
        raise ValueError("a pair without ends")

    @property
    def closed_end(self) -> int | None:
        """The number of the one that was closed."""
        return self.ends.index(None) if None in self.ends else None


class UnixWaiting(Record, frozen=True, array_like=True):
    """A connection in the queue of a listener, of which more was known when the image was all but done."""

    client: ObjectId
    """The socket that has connected; -1 if it is closed."""
    room: int
    """The most bytes that it has sent."""
    at: int
    """Where the rest lies, from the start of the page data: three words (bytes sent, uid, gid), and the bytes."""


class UnixSocket(Record, frozen=True, tag="unix-socket"):
    """A Unix socket that is fresh, bound, listening, waiting to be accepted, or for datagrams."""

    ino: int
    style: int
    name: UnixName | None
    shutdown: int
    queue: list[Message]
    options: SocketOptions
    owner: tuple[int, int]
    own: Credentials | None = None
    """Of a listening socket, or one that waits to be accepted: whom the other end sees in SO_PEERCRED."""
    backlog: int = -1
    """Of a listening socket, else -1."""
    target: ObjectId | None = None
    """The socket it is connected to: of datagrams, or a listener that has not accepted yet."""
    outside: bytes = b""
    """The address of a datagram socket outside the job that it is connected to."""
    lost: bytes = b""
    """The address of a datagram socket that it was connected to, and that is closed."""
    clients: tuple[ObjectId, ...] = ()
    """Of a listening socket: those of the job that wait to be accepted, in their order."""
    sibling: ObjectId | None = None
    """The target, if that has no name: both were made by socketpair(2), and the target left."""
    waiting: tuple[UnixWaiting, ...] = ()
    """Of a listening socket: its queue, if some have sent something or are closed."""
