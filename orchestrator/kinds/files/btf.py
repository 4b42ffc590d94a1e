"""Type information of BPF objects. See BPF_BTF_LOAD in bpf(2)."""

from __future__ import annotations

import os
import struct

from orchestrator.ids import DepotFd, ObjectId
from orchestrator.kinds.files.kind import Depot, FdView, FileKind, OpenFile
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.linux import bpf

_load = struct.Struct("=QQIIII")  # btf, log, its size, that of the log, level, flags
_BY_ID_AT = 4


class Btf(Record, frozen=True, tag="btf"):
    """What was loaded."""

    content: bytes


class BtfFile(Record, frozen=True, tag="btf-file"):
    """A descriptor of it."""

    object: ObjectId


def btf_object(fd: int, scope: Scope) -> ObjectId | None:
    """Return the shared object of type information that we hold at ``fd``; None for the kernel's own."""
    number, content, is_kernel = bpf.read_btf(fd)
    return None if is_kernel else scope.object("btf", number, lambda _: Btf(content))


def open_btf(of: ObjectId, depot: Depot) -> DepotFd:
    """Load type information, once, and return its standing descriptor."""
    standing, new = depot.extra("btf", of)
    if new:
        content: bytes = depot.objects[of].content
        attributes = depot.tape.block(_load.pack(0, 0, len(content), 0, 0, 0))
        depot.tape.point(attributes, 0, depot.tape.block(content))
        depot.tape.bpf(bpf.BTF_LOAD, attributes, _load.size)
        depot.keep(0, standing)
    return standing


def open_again(depot: Depot, standing: int, command: int, flags: int = 0) -> None:
    """Open a BPF object, of which there is a descriptor, once more as descriptor 0: by its number."""
    tape = depot.tape
    found = tape.block(struct.pack("=IIII", 0, 0, 0, flags))  # two words are told; the second is what is asked for
    asked = tape.block(struct.pack("=IIQ", standing, 8, 0))
    tape.point(asked, 8, found)
    tape.bpf(bpf.OBJ_GET_INFO_BY_FD, asked, asked.size)
    tape.bpf(command, found.at(_BY_ID_AT), 12)


def _recognise(view: FdView) -> bool:
    return view.link == "anon_inode:btf"


def _capture(view: FdView, scope: Scope) -> BtfFile | None:
    try:
        of = btf_object(view.local, scope)
    except PermissionError:
        of = None
    if of is None:
        scope.unsupported(view.pid, view.what, "type information of the kernel's own cannot be saved")
        return None
    return BtfFile(of)


def _rebuild(file: OpenFile, depot: Depot) -> None:
    standing = open_btf(file.body.object, depot)
    depot.tape.dup3(standing, depot.slot(file.id), os.O_CLOEXEC)


KIND = FileKind("BPF type information", BtfFile, _recognise, _capture, _rebuild, objects=(Btf,), links="anon_inode:")
