"""Network namespaces whose links begin and end in them: lo, dummies, pairs of veth. See network_namespaces(7).

pyroute2 is imported only where a job has such a namespace.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Any, NamedTuple

from orchestrator.errors import RebuildFailed
from orchestrator.ids import HostPid
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.linux import netlink, nsfs
from orchestrator.linux.procfs import read_file
from orchestrator.namespaces.inside import inside
from orchestrator.namespaces.kind import NamespaceKind
from orchestrator.namespaces.net_messages import NetMessages, read_messages, rebuild_messages
from orchestrator.namespaces.net_sysctl import changed_sysctls, read_net_sysctls, write_net_sysctls
from orchestrator.namespaces.sysctl import read_sysctls
from orchestrator.tape.build import Tape

_LOOPBACK = "loopback"
_KINDS = frozenset((_LOOPBACK, "dummy", "veth"))
_IFF_UP, _IFF_LOOPBACK = 0x1, 0x8
_SETTABLE = 0x80 | 0x100 | 0x200 | 0x1000  # IFF_NOARP, PROMISC, ALLMULTI, MULTICAST
_DEFAULT_QDISCS = frozenset(("noqueue", "pfifo_fast", "fq_codel", "noop", "mq"))
_ADDR_GEN_MODE_NONE = "1"
_SIOCSIFFLAGS = 0x8914
_IFREQ = struct.Struct("=16sh22x")  # struct ifreq with ifr_flags
assert _IFREQ.size == 40
_TABLE_NAMES = {"ip_tables_names": "iptables", "ip6_tables_names": "ip6tables", "arp_tables_names": "arptables"}


class Link(Record, frozen=True):
    """A network interface."""

    index: int
    name: str
    kind: str
    """"loopback", "dummy" or "veth"."""
    up: bool
    flags: int
    mtu: int
    queue_length: int
    address: str
    alias: str = ""
    group: int = 0
    peer: int = 0
    """The index of a veth's other end."""
    other_names: list[str] = []  # noqa: RUF012 - msgspec copies it


class NetNamespace(Record, frozen=True, tag="net"):
    """What a network namespace holds beside its sockets."""

    links: list[Link]
    messages: NetMessages
    sysctls: dict[str, str]
    """Those under /proc/sys/net that differ from a new namespace's."""


class _Seen(NamedTuple):
    links: list[Link]
    messages: NetMessages
    sysctls: dict[str, str]
    refused: list[tuple[str, str]]
    """(what, reason)."""


def _look() -> _Seen:
    refused: list[tuple[str, str]] = []
    links = _links(refused)
    _note_rules(refused)
    return _Seen(links, read_messages(), read_net_sysctls(), refused)


def _look_at_new() -> _Seen:
    nsfs.unshare(nsfs.CLONE_NEWNET)
    return _look()


def _links(refused: list[tuple[str, str]]) -> list[Link]:
    from pyroute2 import IPRoute

    with IPRoute() as route:
        links = [_link(message, refused) for message in route.get_links()]
        for message in route.get_qdiscs():
            kind = message.get_attr("TCA_KIND")
            if kind not in _DEFAULT_QDISCS:
                refused.append((f"queueing discipline {kind} of link {message['index']}", "it cannot be rebuilt"))
    indices = {link.index for link in links}
    refused += [
        (f"link {link.name}", "the other end of this veth pair is in another network namespace")
        for link in links
        if link.kind == "veth" and link.peer not in indices
    ]
    return links


def _link(message: Any, refused: list[tuple[str, str]]) -> Link:
    get = message.get_attr
    flags = message["flags"]
    information = get("IFLA_LINKINFO")
    kind = information.get_attr("IFLA_INFO_KIND") if information else None
    if kind is None:
        kind = _LOOPBACK if flags & _IFF_LOOPBACK else "hardware"
    name = get("IFLA_IFNAME")
    if kind not in _KINDS:
        refused.append((f"link {name}", f"a network interface of kind {kind} cannot be rebuilt"))
    elif get("IFLA_MASTER"):
        refused.append((f"link {name}", "it belongs to a bridge or bond"))
    peer = get("IFLA_LINK") or 0
    if kind == "veth" and get("IFLA_LINK_NETNSID") is not None:
        peer = -1
    xdp = get("IFLA_XDP")
    if xdp and xdp.get_attr("IFLA_XDP_ATTACHED"):
        refused.append((f"link {name}", "a BPF program (XDP) is attached to it"))
    others = get("IFLA_PROP_LIST")
    return Link(
        message["index"],
        name,
        kind,
        bool(flags & _IFF_UP),
        flags & _SETTABLE,
        get("IFLA_MTU"),
        get("IFLA_TXQLEN"),
        get("IFLA_ADDRESS") or "",
        get("IFLA_IFALIAS") or "",
        get("IFLA_GROUP") or 0,
        peer if kind == "veth" else 0,
        [value for kind_of, value in others["attrs"] if kind_of == "IFLA_ALT_IFNAME"] if others else [],
    )


def _note_rules(refused: list[tuple[str, str]]) -> None:
    for file, tool in _TABLE_NAMES.items():
        try:
            tables = read_file(f"/proc/self/net/{file}").decode().split()
        except FileNotFoundError:
            continue
        refused += [(f"{tool} table {table}", "rules of the packet filter cannot be rebuilt") for table in tables]
    for protocol, request, payload, what in (
        (netlink.NETLINK_NETFILTER, netlink.NFT_MSG_GETTABLE, bytes(4), "nftables tables"),
        (netlink.NETLINK_XFRM, netlink.XFRM_MSG_GETPOLICY, bytes(64), "IPsec policies"),
        (netlink.NETLINK_XFRM, netlink.XFRM_MSG_GETSA, bytes(24), "IPsec associations"),
    ):
        try:
            with netlink.Netlink(protocol) as link:
                count = len(link.dump(request, payload))
        except OSError:  # this kernel has none of it
            continue
        if count:
            refused.append((f"{what} ({count})", "they cannot be rebuilt"))


def _capture(pid: HostPid, scope: Scope) -> NetNamespace:
    import pyroute2  # noqa: F401 - once here, not in every child

    seen = inside(pid, ["net"], _look, _Seen)
    new = inside(HostPid(os.getpid()), [], _look_at_new, _Seen)
    known = {what for what, _ in new.refused}  # links that every namespace is born with (tunl0, sit0)
    for what, reason in seen.refused:
        if what not in known:
            scope.unsupported(pid, what, reason)
    links = [link for link in seen.links if link.kind in _KINDS]
    return NetNamespace(links, seen.messages, changed_sysctls(seen.sysctls, new.sysctls))


def _rebuild_outside(record: NetNamespace, pid: HostPid) -> None:
    import pyroute2  # noqa: F401

    try:
        inside(pid, ["net"], lambda: _rebuild_inside(record), None)
    except (OSError, RuntimeError) as error:
        notes = "; ".join(getattr(error, "__notes__", ()))
        where = f" ({notes})" if notes else ""
        raise RebuildFailed(f"the network namespace cannot be rebuilt: {error}{where}") from error


def _rebuild_inside(record: NetNamespace) -> None:
    from pyroute2 import IPRoute

    with IPRoute() as route:
        for link in record.links:
            _make(route, link, record.links)
        for link in record.links:
            _set(route, link)
        write_net_sysctls(record.sysctls)  # before the links are up: some decide what happens then
        # The kernel shall make no IPv6 addresses of its own: they would be unusable for a second or two.
        modes = read_sysctls(f"/proc/sys/net/ipv6/conf/{link.name}/addr_gen_mode" for link in record.links)
        write_net_sysctls(dict.fromkeys(modes, _ADDR_GEN_MODE_NONE))
        for link in record.links:
            flags = link.flags | link.up * _IFF_UP
            route.link("set", index=link.index, flags=flags, change=_SETTABLE | _IFF_UP)
    rebuild_messages(record.messages)
    write_net_sysctls(modes)
    rebuild_messages(record.messages)  # without what it may have made now


def _make(route: Any, link: Link, links: list[Link]) -> None:
    if link.kind == "dummy":
        route.link("add", index=link.index, ifname=link.name, kind="dummy", address=link.address)
    elif link.kind == "veth" and link.peer > link.index:
        other = next(other for other in links if other.index == link.peer)
        # Not ``peer=``, which takes no index.
        peer = {"index": other.index, "attrs": [("IFLA_IFNAME", other.name), ("IFLA_ADDRESS", other.address)]}
        route.link("add", index=link.index, ifname=link.name, kind="veth", address=link.address, VETH_INFO_PEER=peer)


def _set(route: Any, link: Link) -> None:
    settings: dict[str, Any] = {"mtu": link.mtu, "txqlen": link.queue_length, "group": link.group}
    if link.alias:
        settings["ifalias"] = link.alias
    route.link("set", index=link.index, **settings)
    for name in link.other_names:
        route.link("property_add", index=link.index, altname=name)


def fresh(tape: Tape) -> None:
    """Write the entries that bring lo up. Descriptor 0 must be free."""
    tape.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
    tape.ioctl(0, _SIOCSIFFLAGS, _IFREQ.pack(b"lo", _IFF_UP))
    tape.close(0)


KIND = NamespaceKind("net", nsfs.CLONE_NEWNET, NetNamespace, _capture, outside=_rebuild_outside, fresh=fresh)
