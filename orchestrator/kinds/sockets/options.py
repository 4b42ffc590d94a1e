"""Socket options that can be read back and set again. See socket(7), ip(7), ipv6(7), tcp(7), udp(7)."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

from orchestrator.kinds.record import Record
from orchestrator.tape.build import Tape

SOL_IP = 0
SOL_SOCKET = 1
SOL_TCP = 6
SOL_UDP = 17
SOL_IPV6 = 41
SOL_NETLINK = 270

SO_BUF_LOCK = 72
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
_SO_GET_FILTER = 26
TCP_CONGESTION = 13
TCP_ULP = 31
_ABSENT = (errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EINVAL)

# One line an option: level, number, the value it has in a fresh socket (an int, or bytes with their size), its name.
_TABLE = """\
SOCKET  1  0 SO_DEBUG
SOCKET  2  0 SO_REUSEADDR
SOCKET  5  0 SO_DONTROUTE
SOCKET  6  0 SO_BROADCAST
SOCKET  9  0 SO_KEEPALIVE
SOCKET 10  0 SO_OOBINLINE
SOCKET 11  0 SO_NO_CHECK
SOCKET 12  0 SO_PRIORITY
SOCKET 13  0*8 SO_LINGER
SOCKET 15  0 SO_REUSEPORT
SOCKET 16  0 SO_PASSCRED
SOCKET 18  1 SO_RCVLOWAT
SOCKET 20  0*16 SO_RCVTIMEO
SOCKET 21  0*16 SO_SNDTIMEO
SOCKET 29  0 SO_TIMESTAMP
SOCKET 34  0 SO_PASSSEC
SOCKET 35  0 SO_TIMESTAMPNS
SOCKET 36  0 SO_MARK
SOCKET 37  0*8 SO_TIMESTAMPING
SOCKET 40  0 SO_RXQ_OVFL
SOCKET 41  0 SO_WIFI_STATUS
SOCKET 42 -1 SO_PEEK_OFF
SOCKET 43  0 SO_NOFCS
SOCKET 45  0 SO_SELECT_ERR_QUEUE
SOCKET 46  0 SO_BUSY_POLL
SOCKET 47 -1*8 SO_MAX_PACING_RATE
SOCKET 60  0 SO_ZEROCOPY
SOCKET 61  0*8 SO_TXTIME
SOCKET 63  0 SO_TIMESTAMP_NEW
SOCKET 64  0 SO_TIMESTAMPNS_NEW
SOCKET 65  0*8 SO_TIMESTAMPING_NEW
SOCKET 69  0 SO_PREFER_BUSY_POLL
SOCKET 73  0 SO_RESERVE_MEM
SOCKET 75  0 SO_RCVMARK
SOCKET 76  0 SO_PASSPIDFD
SOCKET 82  0 SO_RCVPRIORITY
SOCKET 83  1 SO_PASSRIGHTS
IP      1  0 IP_TOS
IP      2 64 IP_TTL
IP      6  0 IP_RECVOPTS
IP      7  0 IP_RETOPTS
IP      8  0 IP_PKTINFO
IP     10  1 IP_MTU_DISCOVER
IP     11  0 IP_RECVERR
IP     12  0 IP_RECVTTL
IP     13  0 IP_RECVTOS
IP     15  0 IP_FREEBIND
IP     18  0 IP_PASSSEC
IP     19  0 IP_TRANSPARENT
IP     20  0 IP_RECVORIGDSTADDR
IP     21  0 IP_MINTTL
IP     23  0 IP_CHECKSUM
IP     24  0 IP_BIND_ADDRESS_NO_PORT
IP     25  0 IP_RECVFRAGSIZE
IP     26  0 IP_RECVERR_RFC4884
IP     32  0 IP_MULTICAST_IF
IP     33  1 IP_MULTICAST_TTL
IP     34  1 IP_MULTICAST_LOOP
IP     49  1 IP_MULTICAST_ALL
IP     50  0 IP_UNICAST_IF
IP     51  0 IP_LOCAL_PORT_RANGE
IPV6    2  0 IPV6_2292PKTINFO
IPV6    3  0 IPV6_2292HOPOPTS
IPV6    4  0 IPV6_2292DSTOPTS
IPV6    5  0 IPV6_2292RTHDR
IPV6    8  0 IPV6_2292HOPLIMIT
IPV6   11  0 IPV6_FLOWINFO
IPV6   16 64 IPV6_UNICAST_HOPS
IPV6   17  0 IPV6_MULTICAST_IF
IPV6   18  1 IPV6_MULTICAST_HOPS
IPV6   19  1 IPV6_MULTICAST_LOOP
IPV6   23  1 IPV6_MTU_DISCOVER
IPV6   25  0 IPV6_RECVERR
IPV6   26  0 IPV6_V6ONLY
IPV6   29  1 IPV6_MULTICAST_ALL
IPV6   30  0 IPV6_ROUTER_ALERT_ISOLATE
IPV6   31  0 IPV6_RECVERR_RFC4884
IPV6   33  0 IPV6_FLOWINFO_SEND
IPV6   49  0 IPV6_RECVPKTINFO
IPV6   51  0 IPV6_RECVHOPLIMIT
IPV6   53  0 IPV6_RECVHOPOPTS
IPV6   56  0 IPV6_RECVRTHDR
IPV6   58  0 IPV6_RECVDSTOPTS
IPV6   60  0 IPV6_RECVPATHMTU
IPV6   62  0 IPV6_DONTFRAG
IPV6   66  0 IPV6_RECVTCLASS
IPV6   67  0 IPV6_TCLASS
IPV6   70  1 IPV6_AUTOFLOWLABEL
IPV6   73  0 IPV6_MINHOPCOUNT
IPV6   74  0 IPV6_RECVORIGDSTADDR
IPV6   75  0 IPV6_TRANSPARENT
IPV6   76  0 IPV6_UNICAST_IF
IPV6   77  0 IPV6_RECVFRAGSIZE
IPV6   78  0 IPV6_FREEBIND
TCP     1  0 TCP_NODELAY
TCP     3  0 TCP_CORK
TCP     4 7200 TCP_KEEPIDLE
TCP     5 75 TCP_KEEPINTVL
TCP     6  9 TCP_KEEPCNT
TCP     7  6 TCP_SYNCNT
TCP     8 60 TCP_LINGER2
TCP     9  0 TCP_DEFER_ACCEPT
TCP    16  0 TCP_THIN_LINEAR_TIMEOUTS
TCP    18  0 TCP_USER_TIMEOUT
TCP    23  0 TCP_FASTOPEN
TCP    25  0 TCP_NOTSENT_LOWAT
TCP    27  0 TCP_SAVE_SYN
TCP    30  0 TCP_FASTOPEN_CONNECT
TCP    34  0 TCP_FASTOPEN_NO_COOKIE
TCP    36  0 TCP_INQ
TCP    37  0 TCP_TX_DELAY
UDP     1  0 UDP_CORK
UDP   100  0 UDP_ENCAP
UDP   101  0 UDP_NO_CHECK6_TX
UDP   102  0 UDP_NO_CHECK6_RX
UDP   103  0 UDP_SEGMENT
UDP   104  0 UDP_GRO
NETLINK 3  0 NETLINK_PKTINFO
NETLINK 4  0 NETLINK_BROADCAST_ERROR
NETLINK 5  0 NETLINK_NO_ENOBUFS
NETLINK 8  0 NETLINK_LISTEN_ALL_NSID
NETLINK 10 0 NETLINK_CAP_ACK
NETLINK 11 0 NETLINK_EXT_ACK
NETLINK 12 0 NETLINK_GET_STRICT_CHK
"""
_LEVELS = {"SOCKET": SOL_SOCKET, "IP": SOL_IP, "IPV6": SOL_IPV6, "TCP": SOL_TCP, "UDP": SOL_UDP, "NETLINK": SOL_NETLINK}


class Row(NamedTuple):
    """One option of the table; ``fresh`` is its value in a socket that nobody touched."""

    level: int
    number: int
    fresh: bytes
    name: str


def _parse(table: str) -> tuple[Row, ...]:
    rows = []
    for line in table.splitlines():
        level, number, fresh, name = line.split()
        value, _, size = fresh.partition("*")
        raw = int(value).to_bytes(int(size or 4), "little", signed=True)
        rows.append(Row(_LEVELS[level], int(number), raw, name))
    return tuple(rows)


OPTIONS = _parse(_TABLE)


class Option(Record, frozen=True, array_like=True):
    """One call of setsockopt(2)."""

    level: int
    number: int
    value: bytes


class SocketOptions(Record, frozen=True):
    """What distinguishes a socket from a fresh one. Buffer sizes are those of getsockopt(2), with the bookkeeping."""

    send_buffer: int
    receive_buffer: int
    buffer_locks: int
    """SO_BUF_LOCK: which of the two were chosen and must not be tuned by the kernel; -1 where it cannot tell."""
    others: list[Option]


def capture_options(sock: socket.socket, *levels: int) -> SocketOptions:
    """Read every option of SOL_SOCKET and these levels that differs from a fresh socket's."""
    others = []
    for row in OPTIONS:
        if row.level != SOL_SOCKET and row.level not in levels:
            continue
        if row.name == "IP_MULTICAST_ALL" and SOL_IPV6 in levels:
            continue  # IPV6_MULTICAST_ALL is the one that counts there
        if "MULTICAST" in row.name and SOL_TCP in levels:
            continue  # accepted sockets show other values, and streams cannot set them
        value = _read(sock, row.level, row.number, len(row.fresh))
        if value is not None and value != row.fresh:
            others.append(Option(row.level, row.number, value))
    device = _read(sock, SOL_SOCKET, socket.SO_BINDTODEVICE, 16) if SOL_IP in levels else None
    if device:
        others.append(Option(SOL_SOCKET, socket.SO_BINDTODEVICE, device))
    locks = _read(sock, SOL_SOCKET, SO_BUF_LOCK, 4)
    return SocketOptions(
        sock.getsockopt(SOL_SOCKET, socket.SO_SNDBUF),
        sock.getsockopt(SOL_SOCKET, socket.SO_RCVBUF),
        -1 if locks is None else int.from_bytes(locks, "little"),
        others,
    )


def _read(sock: socket.socket, level: int, number: int, size: int) -> bytes | None:
    try:
        return sock.getsockopt(level, number, size)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        error.add_note(f"getsockopt(level {level}, option {number})")
        raise


def set_int(tape: Tape, fd: int, level: int, number: int, value: int, *, may_fail: bool = False) -> None:
    """Set an option that is an int."""
    tape.setsockopt(fd, level, number, struct.pack("=i", value), 4, may_fail=may_fail)


def write_options(tape: Tape, fd: int, options: SocketOptions, skip: Sequence[tuple[int, int]] = ()) -> None:
    """Set all options but the buffers' sizes and those in ``skip``."""
    for option in options.others:
        if (option.level, option.number) not in skip:
            tape.setsockopt(fd, option.level, option.number, option.value, len(option.value))


def write_buffers(tape: Tape, fd: int, options: SocketOptions) -> None:
    """Set the sizes of the buffers as they were, and let the kernel tune them where it could."""
    # The kernel doubles what it is given, and FORCE is not bound by the sysctl limits.
    set_int(tape, fd, SOL_SOCKET, SO_SNDBUFFORCE, options.send_buffer // 2)
    set_int(tape, fd, SOL_SOCKET, SO_RCVBUFFORCE, options.receive_buffer // 2)
    if options.buffer_locks >= 0:
        set_int(tape, fd, SOL_SOCKET, SO_BUF_LOCK, options.buffer_locks)


def write_dress(tape: Tape, fd: int, options: SocketOptions, owner: tuple[int, int]) -> None:
    """Set buffers, options and the uid and gid of the socket itself."""
    write_buffers(tape, fd, options)
    write_options(tape, fd, options)
    if owner != (0, 0):
        tape.fchown(fd, *owner)


def has_filter(sock: socket.socket) -> bool:
    """Whether a BPF program filters what the socket receives. See socket(7), SO_ATTACH_FILTER."""
    import ctypes

    # Python's own getsockopt cannot ask: this option counts in instructions, not in bytes.
    length = ctypes.c_uint32(0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.getsockopt(sock.fileno(), SOL_SOCKET, _SO_GET_FILTER, None, ctypes.byref(length)) == 0:
        return length.value > 0
    return ctypes.get_errno() == errno.EACCES  # an eBPF program, which cannot be read back
