"""The kinds of open files. The first that recognises a descriptor takes it."""

from __future__ import annotations

from functools import lru_cache

from orchestrator.kinds.files import (
    bpf_map,
    btf,
    device,
    epoll,
    eventfd,
    external,
    fanotify,
    fifo,
    ghost,
    inotify,
    io_uring,
    memfd,
    namespace,
    pidfd,
    pipe,
    procfile,
    regular,
    signalfd,
    timerfd,
    tun,
    unnamed,
)
from orchestrator.kinds.files.bpf_map import BpfMap, BpfMapFile
from orchestrator.kinds.files.btf import Btf, BtfFile
from orchestrator.kinds.files.device import Device
from orchestrator.kinds.files.epoll import EventPoll
from orchestrator.kinds.files.eventfd import EventFd
from orchestrator.kinds.files.external import External
from orchestrator.kinds.files.fanotify import Fanotify
from orchestrator.kinds.files.fifo import Fifo
from orchestrator.kinds.files.ghost import Ghost, GhostFile
from orchestrator.kinds.files.inotify import Inotify
from orchestrator.kinds.files.io_uring import IoUring
from orchestrator.kinds.files.kind import FdView, FileKind, OpenFile
from orchestrator.kinds.files.memfd import MemFd
from orchestrator.kinds.files.namespace import NamespaceFile
from orchestrator.kinds.files.pidfd import PidFd
from orchestrator.kinds.files.pipe import PipeBuffer, PipeEnd
from orchestrator.kinds.files.procfile import ProcFile
from orchestrator.kinds.files.regular import NamedFile
from orchestrator.kinds.files.signalfd import SignalFd
from orchestrator.kinds.files.timerfd import TimerFd
from orchestrator.kinds.files.tun import TunFile
from orchestrator.kinds.files.unnamed import (
    Removed,
    RemovedDevice,
    RemovedDirectory,
    RemovedFifo,
    RemovedLink,
    RemovedLinkFile,
)
from orchestrator.kinds.memory.shared import SharedMemory
from orchestrator.kinds.sockets.registry import SOCKET_KINDS, SocketBody, SocketObject
from orchestrator.kinds.terminals import ends as terminals
from orchestrator.kinds.terminals.records import HungUp, MasterEnd, OutsideTerminal, SlaveEnd, Terminal

KINDS: tuple[FileKind, ...] = (
    pipe.KIND,
    *SOCKET_KINDS,
    eventfd.KIND,
    epoll.KIND,
    timerfd.KIND,
    signalfd.KIND,
    memfd.KIND,
    pidfd.KIND,
    inotify.KIND,
    fanotify.KIND,
    io_uring.KIND,
    namespace.KIND,
    bpf_map.KIND,
    btf.KIND,
    ghost.KIND,
    unnamed.DIRECTORY,
    unnamed.FIFO,
    unnamed.DEVICE,
    unnamed.LINK,
    procfile.KIND,
    regular.KIND,
    fifo.KIND,
    terminals.MASTER,
    terminals.SLAVE,
    terminals.HUNG_UP,
    tun.KIND,
    device.KIND,
    external.KIND,
)

FileBody = (
    NamedFile
    | GhostFile
    | MemFd
    | Device
    | PipeEnd
    | Fifo
    | EventFd
    | EventPoll
    | TimerFd
    | SignalFd
    | PidFd
    | Inotify
    | Fanotify
    | IoUring
    | NamespaceFile
    | ProcFile
    | RemovedDirectory
    | RemovedFifo
    | RemovedDevice
    | RemovedLinkFile
    | MasterEnd
    | SlaveEnd
    | HungUp
    | External
    | BpfMapFile
    | BtfFile
    | TunFile
    | SocketBody
)
"""What OpenFile.body may be."""

FileObject = (
    Ghost | Removed | RemovedLink | PipeBuffer | Terminal | OutsideTerminal | SharedMemory | SocketObject | BpfMap | Btf
)
"""What open files, and memory, put into an image's shared objects."""


class FileRecord(OpenFile, frozen=True, kw_only=True):
    """An OpenFile as it is decoded: only bodies that are known."""

    body: FileBody


_BY_RECORD: dict[type, FileKind] = {kind.record: kind for kind in KINDS}


def recognise(view: FdView) -> FileKind | None:
    """Find the kind of a descriptor."""
    for kind in _candidates("/" if view.link.startswith("/") else view.link.partition("[")[0]):
        if kind.recognise(view):
            return kind
    return None


@lru_cache(maxsize=256)
def _candidates(beginning: str) -> tuple[FileKind, ...]:
    """Return the kinds that may recognise a link that begins so."""
    return tuple(kind for kind in KINDS if beginning.startswith(kind.links))


def kind_of(file: OpenFile) -> FileKind:
    """Return the kind that an open file was recorded by."""
    return _BY_RECORD[type(file.body)]
