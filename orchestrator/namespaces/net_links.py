"""Network interfaces, read without pyroute2: importing it takes longer than a job may be held."""

from __future__ import annotations

import struct

from orchestrator.kinds.record import Record
from orchestrator.linux import netlink
from orchestrator.linux.netlink import Netlink
from orchestrator.linux.procfs import read_file
from orchestrator.namespaces.net_tun import Tun, read_tun

LOOPBACK = "loopback"
KINDS = frozenset((LOOPBACK, "dummy", "veth", "tun"))
IFF_UP, _IFF_LOOPBACK = 0x1, 0x8
SETTABLE = 0x80 | 0x100 | 0x200 | 0x1000
"""IFF_NOARP, IFF_PROMISC, IFF_ALLMULTI, IFF_MULTICAST."""
_DEFAULT_QDISCS = frozenset(("noqueue", "pfifo_fast", "fq_codel", "noop", "mq"))
_TABLE_NAMES = {"ip_tables_names": "iptables", "ip6_tables_names": "ip6tables", "arp_tables_names": "arptables"}

_ifinfomsg = struct.Struct("=BxHiII")  # family type index flags change
_tcmsg = struct.Struct("=BxHiIII")  # family, pad, ifindex handle parent info
assert (_ifinfomsg.size, _tcmsg.size) == (16, 20)
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER, _IFLA_TXQLEN = 1, 3, 4, 5, 10, 13
_IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_GROUP, _IFLA_LINK_NETNSID, _IFLA_XDP, _IFLA_PROP_LIST = 18, 20, 27, 37, 43, 52
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_XDP_ATTACHED, _IFLA_ALT_IFNAME, _TCA_KIND = 1, 2, 2, 53, 1

Refused = list[tuple[str, str]]
"""(what, why it cannot be rebuilt)."""


class Link(Record, frozen=True):
    """A network interface."""

    index: int
    name: str
    kind: str
    """"loopback", "dummy", "veth" or "tun", which may be a tap."""
    up: bool
    flags: int
    mtu: int
    queue_length: int
    address: str
    alias: str = ""
    group: int = 0
    peer: int = 0
    """The index of a veth's other end; -1 if that is in another namespace."""
    other_names: list[str] = []  # noqa: RUF012 - msgspec copies it
    tun: Tun | None = None


def read_links(refused: Refused) -> list[Link]:
    """Read the interfaces of our own network namespace, and note in ``refused`` what cannot be rebuilt."""
    with Netlink() as route:
        links = [_link(payload, refused) for payload in route.dump(netlink.RTM_GETLINK, bytes(_ifinfomsg.size))]
        names = {link.index: link.name for link in links}
        for payload in route.dump(netlink.RTM_GETQDISC, bytes(_tcmsg.size)):
            kind = _text(dict(netlink.attributes(payload, _tcmsg.size)).get(_TCA_KIND, b""))
            if kind not in _DEFAULT_QDISCS:
                name = names.get(_tcmsg.unpack_from(payload)[2], "?")
                refused.append((f"queueing discipline {kind} of link {name}", "it cannot be rebuilt"))
    refused += [
        (f"link {link.name}", "the other end of this veth pair is in another network namespace")
        for link in links
        if link.kind == "veth" and link.peer not in names
    ]
    return links


def _link(payload: bytes, refused: Refused) -> Link:
    _, _, index, flags, _ = _ifinfomsg.unpack_from(payload)
    found = dict(netlink.attributes(payload, _ifinfomsg.size))
    name = _text(found[_IFLA_IFNAME])
    information = dict(netlink.attributes(found.get(_IFLA_LINKINFO, b""), 0))
    kind = _text(information.get(_IFLA_INFO_KIND, b""))
    if not kind:
        kind = LOOPBACK if flags & _IFF_LOOPBACK else "hardware"
    if kind not in KINDS:
        refused.append((f"link {name}", f"a network interface of kind {kind} cannot be rebuilt"))
    elif _IFLA_MASTER in found:
        refused.append((f"link {name}", "it belongs to a bridge or bond"))
    if any(dict(netlink.attributes(found.get(_IFLA_XDP, b""), 0)).get(_IFLA_XDP_ATTACHED, b"")):
        refused.append((f"link {name}", "a BPF program (XDP) is attached to it"))
    peer = -1 if _IFLA_LINK_NETNSID in found else _number(found.get(_IFLA_LINK))
    return Link(
        index,
        name,
        kind,
        bool(flags & IFF_UP),
        flags & SETTABLE,
        _number(found.get(_IFLA_MTU)),
        _number(found.get(_IFLA_TXQLEN)),
        found.get(_IFLA_ADDRESS, b"").hex(":"),
        _text(found.get(_IFLA_IFALIAS, b"")),
        _number(found.get(_IFLA_GROUP)),
        peer if kind == "veth" else 0,
        [
            _text(value)
            for type_, value in netlink.attributes(found.get(_IFLA_PROP_LIST, b""), 0)
            if type_ == _IFLA_ALT_IFNAME
        ],
        read_tun(dict(netlink.attributes(information.get(_IFLA_INFO_DATA, b""), 0))) if kind == "tun" else None,
    )


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def _number(value: bytes | None) -> int:
    return int.from_bytes(value or b"", "little")


def note_filters(refused: Refused) -> None:
    """Note the rules of packet filters and of IPsec in our own network namespace: none of them can be rebuilt."""
    for file, tool in _TABLE_NAMES.items():
        try:
            tables = read_file(f"/proc/thread-self/net/{file}").decode().split()
        except FileNotFoundError:
            continue
        refused += [(f"{tool} table {table}", "rules of the packet filter cannot be rebuilt") for table in tables]
    for protocol, request, payload, what in (
        (netlink.NETLINK_NETFILTER, netlink.NFT_MSG_GETTABLE, bytes(4), "nftables tables"),
        (netlink.NETLINK_XFRM, netlink.XFRM_MSG_GETPOLICY, bytes(64), "IPsec policies"),
        (netlink.NETLINK_XFRM, netlink.XFRM_MSG_GETSA, bytes(24), "IPsec associations"),
    ):
        try:
            with Netlink(protocol) as link:
                count = len(link.dump(request, payload))
        except OSError:  # this kernel has none of it
            continue
        if count:
            refused.append((f"{what} ({count})", "they cannot be rebuilt"))
