"""From which NUMA nodes a thread, or a mapping, has its memory. See set_mempolicy(2), mbind(2).

The policies of mappings are in numa_maps alone, which takes the kernel half as long again as smaps. A machine with
one node has no use for them, so there nobody looks.
"""

from __future__ import annotations

import re
from functools import cache

from orchestrator.kinds.record import Record
from orchestrator.kinds.task.kind import Answer
from orchestrator.linux.procfs import read_file
from orchestrator.tape.build import Played, Tape

_NODE_BYTES = 128  # a kernel has at most 1024 nodes
_NODE_BITS = 8 * _NODE_BYTES + 1  # the calls take one off


class MemoryPolicy(Record, frozen=True):
    """A policy of set_mempolicy(2)."""

    mode: int
    """MPOL_*, with its flags."""
    nodes: bytes
    """A bit mask, little end first, without trailing zeros."""


DEFAULT = MemoryPolicy(0, b"")


def ask_policy(tape: Tape) -> Answer[MemoryPolicy]:
    """Ask a thread; a kernel without NUMA has the default."""
    mode, nodes = tape.space(8), tape.space(_NODE_BYTES)
    call = tape.get_mempolicy(mode, nodes, _NODE_BITS, 0, 0, may_fail=True)

    def read(played: Played) -> MemoryPolicy:
        if played.result(call) < 0:
            return DEFAULT
        return MemoryPolicy(int.from_bytes(played.data(mode)[:4], "little"), played.data(nodes).rstrip(b"\0"))

    return read


def tell_policy(tape: Tape, wanted: MemoryPolicy, before: MemoryPolicy) -> None:
    """Set it if it differs."""
    if wanted == before:
        return
    if wanted.nodes:
        tape.set_mempolicy(wanted.mode, wanted.nodes.ljust(_NODE_BYTES, b"\0"), _NODE_BITS)
    else:
        tape.set_mempolicy(wanted.mode, 0, 0)


_MODES = {
    b"default": 0, b"prefer": 1, b"bind": 2, b"interleave": 3, b"local": 4, b"prefer (many)": 5,
    b"weighted interleave": 6,
}  # fmt: skip
_FLAGS = {b"static": 1 << 15, b"relative": 1 << 14, b"balancing": 1 << 13}
_LINE = re.compile(
    rb"^([0-9a-f]+) (" + b"|".join(re.escape(name) for name in sorted(_MODES, key=len, reverse=True)) + rb")"
    rb"(?:=([a-z|]+))?(?::([0-9,-]+))?(?: |$)",
    re.MULTILINE,
)


@cache
def several_nodes() -> bool:
    """Whether memory is on more than one node of this machine."""
    try:
        return len(_nodes(read_file("/sys/devices/system/node/has_memory").strip())) > 1
    except OSError:
        return False


def _nodes(text: bytes) -> list[int]:
    """Return the nodes of a list such as 0-2,5."""
    ranges = [part.split(b"-") for part in text.split(b",") if part]
    return [node for ends in ranges for node in range(int(ends[0]), int(ends[-1]) + 1)]


def read_policies(pid: int) -> dict[int, MemoryPolicy]:
    """Return the policy of every mapping of a held process, by its first address: its own, or that of the process."""
    return parse_policies(read_file(f"/proc/{pid}/numa_maps"))


def parse_policies(raw: bytes) -> dict[int, MemoryPolicy]:
    """Parse a numa_maps file."""
    found = {}
    for at, mode, flags, nodes in _LINE.findall(raw):
        bits = sum(1 << node for node in _nodes(nodes))
        number = _MODES[mode] | sum(_FLAGS[flag] for flag in flags.split(b"|") if flag)
        found[int(at, 16)] = MemoryPolicy(number, bits.to_bytes(_NODE_BYTES, "little").rstrip(b"\0"))
    if len(found) != raw.count(b"\n"):
        raise ValueError(f"numa_maps: {raw.count(bytes([10]))} lines, but {len(found)} that are understood")
    return found


def tell_mapping_policy(tape: Tape, start: int, length: int, wanted: MemoryPolicy) -> None:
    """Set the policy of a mapping, for the pages that it will have."""
    if wanted.nodes:
        tape.mbind(start, length, wanted.mode, wanted.nodes.ljust(_NODE_BYTES, b"\0"), _NODE_BITS, 0)
    else:
        tape.mbind(start, length, wanted.mode, 0, 0, 0)
