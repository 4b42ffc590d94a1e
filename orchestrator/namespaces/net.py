"""Network namespaces whose links begin and end in them: lo, dummies, veth pairs, tun, tap. See network_namespaces(7).

Capture speaks netlink itself, as it must be short; rebuilding imports pyroute2, which nothing else does.
"""

from __future__ import annotations

import socket
import struct
from functools import cache
from typing import Any, NamedTuple

from orchestrator.errors import RebuildFailed
from orchestrator.ids import HostPid
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.linux import nsfs
from orchestrator.namespaces.enter import enter
from orchestrator.namespaces.inside import inside
from orchestrator.namespaces.kind import NamespaceKind
from orchestrator.namespaces.net_links import IFF_UP, KINDS, SETTABLE, Link, Refused, note_filters, read_links
from orchestrator.namespaces.net_messages import NetMessages, read_messages, rebuild_messages
from orchestrator.namespaces.net_sysctl import changed_sysctls, read_net_sysctls, write_net_sysctls
from orchestrator.namespaces.net_tun import make_tun
from orchestrator.namespaces.sysctl import read_sysctls
from orchestrator.tape.build import Tape

_ADDR_GEN_MODE_NONE = "1"
_SIOCSIFFLAGS = 0x8914
_IFREQ = struct.Struct("=16sh22x")  # struct ifreq with ifr_flags
assert _IFREQ.size == 40


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
    refused: Refused = []
    links = read_links(refused)
    note_filters(refused)
    return _Seen(links, read_messages(), read_net_sysctls(), refused)


@cache
def look_at_new() -> _Seen:
    """Look into a new network namespace, to tell what a job's has beside; once, before the job is held."""
    return enter(None, ["net"], _look)


def _capture(pid: HostPid, scope: Scope) -> NetNamespace:
    new = look_at_new()
    seen = enter(pid, ["net"], _look)
    known = {what for what, _ in new.refused}  # links that every namespace is born with (tunl0, sit0)
    for what, reason in seen.refused:
        if what not in known:
            scope.unsupported(pid, what, reason)
    links = [link for link in seen.links if link.kind in KINDS]
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
            flags = link.flags | link.up * IFF_UP
            route.link("set", index=link.index, flags=flags, change=SETTABLE | IFF_UP)
    rebuild_messages(record.messages)
    write_net_sysctls(modes)
    rebuild_messages(record.messages)  # without what it may have made now


def _make(route: Any, link: Link, links: list[Link]) -> None:
    if link.kind == "dummy":
        route.link("add", index=link.index, ifname=link.name, kind="dummy", address=link.address)
    elif link.kind == "tun":
        assert link.tun is not None
        make_tun(link.name, link.index, link.tun)
        if link.address:
            route.link("set", index=link.index, address=link.address)
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
    tape.ioctl(0, _SIOCSIFFLAGS, _IFREQ.pack(b"lo", IFF_UP))
    tape.close(0)


KIND = NamespaceKind("net", nsfs.CLONE_NEWNET, NetNamespace, _capture, outside=_rebuild_outside, fresh=fresh)
