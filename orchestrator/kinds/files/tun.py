"""Files that are the other side of a network interface. See tuntap.rst of the kernel.

The interface itself is there already, and lasts: ``namespaces/net_tun.py`` makes it.
"""

from __future__ import annotations

import os
import stat

from orchestrator.kinds.files.kind import Depot, FdView, FileKind, OpenFile
from orchestrator.kinds.files.regular import named
from orchestrator.kinds.files.reopening import AT_FDCWD, open_flags
from orchestrator.kinds.record import Record, native_path, portable_path
from orchestrator.kinds.scope import Scope
from orchestrator.linux import tuntap


class TunFile(Record, frozen=True, tag="tun"):
    """Such a file. What waits to be read from it is lost, as packets may be."""

    path: str
    interface: str = ""
    """Empty for one that has none yet."""
    flags: int = 0
    persistent: bool = False
    """Whether the interface stays when all its files are closed."""
    detached: bool = False
    """Whether it is a queue that is switched off."""
    send_buffer: int = 0
    header_bytes: int = 0


def _recognise(view: FdView) -> bool:
    return (
        view.fd >= 0
        and stat.S_ISCHR(view.stat.st_mode)
        and view.stat.st_rdev == tuntap.DEVICE
        and not view.info.flags & os.O_PATH
    )


def _capture(view: FdView, scope: Scope) -> TunFile | None:
    if not named(view, scope):
        return None
    path = portable_path(view.link)
    found = tuntap.interface(view.local)
    if found is None:
        return TunFile(path)
    of, own = tuntap.namespace(view.local), os.stat(f"/proc/{view.pid}/ns/net")
    ours = os.stat("/proc/thread-self/ns/net")
    if of == (ours.st_dev, ours.st_ino) or of != (own.st_dev, own.st_ino):
        device = f"{os.major(tuntap.DEVICE)}:{os.minor(tuntap.DEVICE)}"
        scope.unsupported(
            view.pid,
            view.what,
            "its network interface is in a network namespace that is not the job's own",
            f"--external 'dev[{device}]' leaves it out of the image, to be handed over at the restore",
        )
        return None
    name, flags = found
    return TunFile(
        path,
        name,
        flags & tuntap.KEPT_FLAGS,
        bool(flags & tuntap.IFF_PERSIST),
        bool(flags & tuntap.IFF_DETACH_QUEUE),
        tuntap.number(view.local, tuntap.TUNGETSNDBUF),
        tuntap.number(view.local, tuntap.TUNGETVNETHDRSZ) if flags & tuntap.IFF_VNET_HDR else 0,
    )


def _rebuild(file: OpenFile, depot: Depot) -> None:
    body: TunFile = file.body
    tape = depot.tape
    tape.openat(AT_FDCWD, native_path(body.path), open_flags(file.flags), 0)
    if body.interface:
        tape.ioctl(0, tuntap.TUNSETIFF, tuntap.ifreq(body.interface, body.flags))
        tape.ioctl(0, tuntap.TUNSETSNDBUF, body.send_buffer.to_bytes(4, "little"))
        if body.header_bytes:
            tape.ioctl(0, tuntap.TUNSETVNETHDRSZ, body.header_bytes.to_bytes(4, "little"))
        if not body.persistent:
            tape.ioctl(0, tuntap.TUNSETPERSIST, 0)
        if body.detached:
            tape.ioctl(0, tuntap.TUNSETQUEUE, tuntap.ifreq("", tuntap.IFF_DETACH_QUEUE))
    depot.keep(0, depot.slot(file.id))


KIND = FileKind("tun", TunFile, _recognise, _capture, _rebuild, links="/")
