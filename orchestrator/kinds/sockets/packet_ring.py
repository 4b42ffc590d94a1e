"""The rings of packet sockets, which they share with those who map them. See packet_mmap in the kernel's documentation.

Where in a ring the kernel goes on cannot be set: a ring comes back if nothing has gone through it yet.
"""

from __future__ import annotations

import mmap
import socket
import struct
from collections.abc import Sequence

from orchestrator.kinds.record import Record
from orchestrator.kinds.sockets.option_table import SOL_PACKET
from orchestrator.kinds.sockets.refused import Refused
from orchestrator.linux.sockdiag import PacketDiag
from orchestrator.tape.build import Tape

_RX_RING, _TX_RING = 5, 13
_PACKET_VERSION = 10
_V3 = 2
_packet_diag_ring = struct.Struct("=7I")
_tpacket_req = struct.Struct("=4I")
_tpacket_req3 = struct.Struct("=7I")
_block_head = struct.Struct("=IIIIIIQ")  # version, offset of private data; status, packets, offset, length, number
_HEAD_BYTES = 48
assert _packet_diag_ring.size == 28


class PacketRing(Record, frozen=True, array_like=True):
    """PACKET_RX_RING or PACKET_TX_RING."""

    option: int
    block_size: int
    blocks: int
    frame_size: int
    frames: int
    retire_ms: int
    private_bytes: int
    features: int

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return self.block_size * self.blocks


def capture_rings(sock: socket.socket, diag: PacketDiag) -> tuple[PacketRing, ...]:
    """Record a socket's rings. Raises Refused if they have been in use."""
    rings = tuple(
        PacketRing(option, *_packet_diag_ring.unpack_from(listed))
        for option, listed in ((_RX_RING, diag.receiving), (_TX_RING, diag.sending))
        if listed
    )
    if rings:
        with mmap.mmap(sock.fileno(), ring_bytes(rings), mmap.MAP_SHARED, mmap.PROT_READ) as memory:
            in_blocks = sock.getsockopt(SOL_PACKET, _PACKET_VERSION) == _V3
            if not _is_untouched(memory[:], rings, in_blocks=in_blocks):
                raise Refused("packets have gone through its ring, and where the kernel goes on in it cannot be set")
    return rings


def ring_bytes(rings: Sequence[PacketRing]) -> int:
    """Return the bytes of the one mapping that has all rings of a socket, the receiving one first."""
    return sum(ring.size for ring in rings)


def _is_untouched(memory: bytes, rings: Sequence[PacketRing], *, in_blocks: bool) -> bool:
    if in_blocks and rings[0].option == _RX_RING:
        # The first block is open from the start.
        _, _, status, packets, _, _, number = _block_head.unpack_from(memory)
        if status or packets or number != 1:
            return False
        memory = bytes(_HEAD_BYTES) + memory[_HEAD_BYTES:]
    return not any(memory)


def write_rings(tape: Tape, fd: int, rings: Sequence[PacketRing], *, in_blocks: bool) -> None:
    """Give a socket its rings again; its options must be set before."""
    for ring in rings:
        geometry = (ring.block_size, ring.blocks, ring.frame_size, ring.frames)
        if in_blocks:
            value = _tpacket_req3.pack(*geometry, ring.retire_ms, ring.private_bytes, ring.features)
        else:
            value = _tpacket_req.pack(*geometry)
        tape.setsockopt(fd, SOL_PACKET, ring.option, value, len(value))
