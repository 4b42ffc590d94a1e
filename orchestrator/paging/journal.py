"""What was read from the descriptors of page faults, where the death of who read it does not reach.

Who causes an event goes on as soon as somebody has read it, and it is told once. So messages are read straight into
memory that a second process shares: a reader that is killed within read(2) still leaves there what it took.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from orchestrator.linux import userfaultfd

_MESSAGE = struct.Struct("=BBHIQQQ")
_HEAD = 4096
_SOURCE_AT = 0
_AT_ONCE = 32
_ROOM = 1 << 16
_APPLIED, _APPLIED_LAST, _CLOSED = 0x80, 0x81, 0x82
_mlock2 = ctypes.CDLL(None).mlock2
_mlock2.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint]
_MLOCK_ONFAULT = 1
assert _MESSAGE.size == userfaultfd.MESSAGE_BYTES


class Message(NamedTuple):
    """One message; see struct uffd_msg in <linux/userfaultfd.h>."""

    number: int
    """Its place in the journal."""
    source: int
    """The descriptor that it was read from."""
    event: int
    first: int
    """Of a fork the new descriptor, of a move where from, of other events where a range starts."""
    second: int
    """Of a fault the address, of a move where to, of other events where a range ends."""
    length: int
    """Of a move."""

    @property
    def child(self) -> int:
        """Of a fork the new descriptor."""
        return self.first & 0xFFFFFFFF


class Closed(NamedTuple):
    """A descriptor that was closed: its number may become another's."""

    fd: int


class Journal:
    """Messages in the order in which they were read, and the order in which they then were applied."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _HEAD + _ROOM * _MESSAGE.size)
        anchor = ctypes.c_char.from_buffer(self._memory)
        # Reading must not fail for want of a page, not even when a SIGKILL is on its way.
        _mlock2(ctypes.addressof(anchor), len(self._memory), _MLOCK_ONFAULT)
        del anchor
        self._view = memoryview(self._memory)
        self._next = 0

    @property
    def is_nearly_full(self) -> bool:
        """Whether a new one must take its place."""
        return self._next > _ROOM * 3 // 4

    def read(self, fd: int) -> list[Message]:
        """Take what a descriptor has to tell; nothing is an empty list."""
        struct.pack_into("=I", self._memory, _SOURCE_AT, fd)
        begin = _HEAD + self._next * _MESSAGE.size
        buffer = self._view[begin : begin + _AT_ONCE * _MESSAGE.size]
        buffer[0] = 0
        buffer[-1] = 0
        try:
            size = os.readv(fd, [buffer])
        except BlockingIOError:
            return []
        found = []
        for number in range(self._next, self._next + size // _MESSAGE.size):
            struct.pack_into("=I", self._memory, _HEAD + number * _MESSAGE.size + 4, fd)
            found.append(self._message(number))
        self._next += len(found)
        return found

    def carry_over(self, messages: list[Message]) -> list[Message]:
        """Enter messages of another journal that were not applied; return them as they stand here."""
        here = []
        for _, source, event, first, second, length in messages:
            at = _HEAD + self._next * _MESSAGE.size
            _MESSAGE.pack_into(self._memory, at, event, 0, 0, source, first, second, length)
            here.append(self._message(self._next))
            self._next += 1
        return here

    def note_applied(self, numbers: list[int]) -> None:
        """Remember in which order messages took effect; all of them, or none."""
        for number in numbers[:-1]:
            self._add(_APPLIED, number)
        self._add(_APPLIED_LAST, numbers[-1])

    def note_closed(self, fd: int) -> None:
        """Remember that a descriptor is about to be closed."""
        self._add(_CLOSED, fd)

    def replay(self) -> Iterator[list[Message] | Closed]:
        """Yield again what was applied at once, and what was closed. Then who reads on is at the end."""
        applied = []
        self._next = 0
        for number in range(_ROOM):
            event, _, _, _, first, _, _ = self._entry(number)
            if not event:
                break
            self._next = number + 1
            if event == _CLOSED:
                yield Closed(first)
            elif event in (_APPLIED, _APPLIED_LAST):
                applied.append(self._message(first))
                if event == _APPLIED_LAST:
                    yield applied
                    applied = []

    def left(self) -> list[Message]:
        """Return the messages that were read and not applied, but for faults: they come again when they are woken."""
        done = set()
        part: set[int] = set()
        found = []
        for number in range(self._next):
            event, _, _, _, first, _, _ = self._entry(number)
            if event in (_APPLIED, _APPLIED_LAST):
                part.add(first)
                if event == _APPLIED_LAST:
                    done |= part
                    part = set()
            elif event not in (_CLOSED, userfaultfd.UFFD_EVENT_PAGEFAULT):
                found.append(number)
        return [self._message(number) for number in found if number not in done]

    def close(self) -> None:
        """Give our view of it back."""
        self._view.release()
        self._memory.close()

    def _add(self, event: int, value: int) -> None:
        at = _HEAD + self._next * _MESSAGE.size
        _MESSAGE.pack_into(self._memory, at, 0, 0, 0, 0, value, 0, 0)
        self._memory[at] = event  # only now is it there
        self._next += 1

    def _entry(self, number: int) -> tuple[int, int, int, int, int, int, int]:
        return _MESSAGE.unpack_from(self._memory, _HEAD + number * _MESSAGE.size)

    def _message(self, number: int) -> Message:
        event, _, _, source, first, second, length = self._entry(number)
        if not source:  # its reader was killed before it could say so
            (source,) = struct.unpack_from("=I", self._memory, _SOURCE_AT)
        return Message(number, source, event, first, second, length)
