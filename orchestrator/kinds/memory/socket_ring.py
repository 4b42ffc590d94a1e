"""Mappings of the rings of packet sockets: the same open file is mapped again."""

from __future__ import annotations

from typing import Any

import msgspec

from orchestrator.ids import HostPid
from orchestrator.kinds.files.table import FileCollector
from orchestrator.kinds.memory.record import Vma
from orchestrator.kinds.scope import Scope
from orchestrator.kinds.sockets.packet import PacketSocket
from orchestrator.kinds.sockets.packet_ring import ring_bytes
from orchestrator.linux.proc_maps import MapLine


def tie_ring(scope: Scope, files: FileCollector, pid: HostPid, line: MapLine, vma: Vma) -> None:
    """Put the open file of a mapped socket into the record of the mapping, once all tables are known."""
    for held in files.of_inode(line.inode):
        body: Any = files.files[held.file].body
        if isinstance(body, PacketSocket) and ring_bytes(body.rings) == line.end - line.start:
            msgspec.structs.force_setattr(vma, "of", held.file)
            return
    what = f"memory {line.start:#x}-{line.end:#x} ({line.path.decode()})"
    scope.unsupported(pid, what, "the ring of a socket cannot be saved")
