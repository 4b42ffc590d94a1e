"""Two network namespaces with a cable between them, for as long as a test lasts."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.linux import nsfs

HERE = {socket.AF_INET: "10.77.0.1", socket.AF_INET6: "fd77::1"}
"""Addresses of the namespace in which the test itself is, with all that it starts."""
THERE = {socket.AF_INET: "10.77.0.2", socket.AF_INET6: "fd77::2"}
_LENGTH = {socket.AF_INET: 24, socket.AF_INET6: 64}


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=20)


@dataclass(frozen=True, slots=True)
class TwoNetworks:
    here: int
    there: int

    def listen_there(self, family: socket.AddressFamily) -> socket.socket:
        """Make a listener in the other namespace."""
        nsfs.setns(self.there, nsfs.CLONE_NEWNET)
        try:
            return socket.create_server((THERE[family], 0), family=family)
        finally:
            nsfs.setns(self.here, nsfs.CLONE_NEWNET)

    def address(self, family: socket.AddressFamily, *, remove: bool) -> None:
        """Take the address here away, or bring it back."""
        extra = [] if family == socket.AF_INET or remove else ["nodad"]
        address = f"{HERE[family]}/{_LENGTH[family]}"
        ip("address", "delete" if remove else "add", address, "dev", "cable", *extra)


@contextlib.contextmanager
def two_networks() -> Iterator[TwoNetworks]:
    """Move the calling thread, and what it starts, into one of two new namespaces that are connected."""
    with contextlib.ExitStack() as stack:

        def current() -> int:
            fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            return fd

        home = current()
        stack.callback(nsfs.setns, home, nsfs.CLONE_NEWNET)
        nsfs.unshare(nsfs.CLONE_NEWNET)
        there = current()
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as keeper:  # gives the namespace a name
            nsfs.unshare(nsfs.CLONE_NEWNET)
            here = current()
            ip("link", "set", "lo", "up")
            ip("link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", str(keeper.pid))
        for namespace, addresses in ((there, THERE), (here, HERE)):
            nsfs.setns(namespace, nsfs.CLONE_NEWNET)
            ip("address", "add", f"{addresses[socket.AF_INET]}/24", "dev", "cable")
            ip("address", "add", f"{addresses[socket.AF_INET6]}/64", "dev", "cable", "nodad")
            ip("link", "set", "cable", "up")
        yield TwoNetworks(here, there)
