"""Tapes: lists of system calls that another task makes for us.

A tape is written down here, encoded for the memory it will lie in, played by the machine code in
``linux/arch`` and read back. It prints as strace would print it. An entry is ten 64-bit words:
number, six arguments, the address that takes the result, flags, the result.
"""

from __future__ import annotations

import os
import signal
import struct
from array import array
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import msgspec

from orchestrator.ids import FarAddr, Pid, Tid
from orchestrator.linux import syscalls
from orchestrator.linux.call import machine
from orchestrator.tape.strace import render_call

_ENTRY = struct.Struct("<10Q")
_IDS = struct.Struct("<2Q")
ENTRY_SIZE = _ENTRY.size
_RESULT_WORD = 9
MAY_FAIL = 1
_CLOSING = 2
TAPE_SIGNAL = int(signal.SIGWINCH)
"""The signal by which a task tells that its tape is at its end; ignored by default, should nobody listen."""
_MASK64 = (1 << 64) - 1
_NOT_PLAYED = 0x7FFF_FFFF_FFFF_FFFF


# Plain classes, and the methods of a tape made beforehand: a job waits while some hundred calls a task are written.
class Result:
    """The result of an earlier entry, usable once as an argument of a later one; -1 if the earlier one has failed."""

    __slots__ = ("entry",)

    def __init__(self, entry: int) -> None:
        self.entry = entry


class Block:
    """Bytes that travel with the tape; as an argument it is their address."""

    __slots__ = ("offset", "size")

    def __init__(self, offset: int, size: int) -> None:
        self.offset = offset
        self.size = size

    def at(self, shift: int) -> Inside:
        """Point into the block, ``shift`` bytes from its start."""
        return Inside(self.offset + shift)


class Inside(msgspec.Struct, frozen=True):
    """An address inside the tape's data."""

    offset: int


class Slot(msgspec.Struct, frozen=True):
    """The address of an argument of another entry: a call that stores something there gives it to that one."""

    entry: int
    position: int


Argument = int | bytes | str | Result | Block | Inside | Slot
_AS_THEY_ARE = {int, Block, Inside, Slot}
_PADDING = tuple((0,) * (6 - count) for count in range(7))


class TapeError(Exception):
    """A tape that stopped at an entry that must not fail."""

    def __init__(self, tape: Tape, entry: int, errno: int, played: Played) -> None:
        self.tape = tape
        self.entry = entry
        self.errno = errno
        self.played = played
        super().__init__()

    def __str__(self) -> str:
        return f"{self.tape.render_entry(self.entry)} = -1 {os.strerror(self.errno)}"


class Tape:
    """A growing list of system calls with their data.

    ``tape.openat(AT_FDCWD, b"/dev/null", O_RDWR)`` adds an entry and returns its :class:`Result`.
    """

    __slots__ = ("_calls", "_data", "_encoded", "_links", "_may_fail", "_pointers", "ends_task", "is_repeated", "label")

    def __init__(self, label: str = "") -> None:
        self.label = label
        self.ends_task = False
        """Whether the task shall end by playing it."""
        self.is_repeated = False
        """Whether others will play it, too, maybe at the same address."""
        self._calls: list[tuple[str, tuple[Argument, ...]]] = []
        self._may_fail: set[int] = set()
        self._links: dict[int, tuple[int, int]] = {}  # entry -> (later entry, argument)
        self._pointers: list[tuple[int, int]] = []
        self._data = bytearray()
        self._encoded: tuple[tuple[int, int, int], bytes] | None = None
        """For an address, and so many calls and bytes: what encode() returned last."""

    def __len__(self) -> int:
        return len(self._calls)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Callable[..., Result]: ...

    def call(self, name: str, *arguments: Argument, may_fail: bool = False) -> Result:
        """Add one system call. ``bytes`` travel as given, ``str`` with a NUL behind, both by address."""
        entry = len(self._calls)
        if not _AS_THEY_ARE.issuperset(map(type, arguments)):
            arguments = tuple([self._fix(entry, i, a) for i, a in enumerate(arguments)])
        self._calls.append((name, arguments))
        if may_fail:
            self._may_fail.add(entry)
        return Result(entry)

    def _fix(self, entry: int, position: int, argument: Argument) -> Argument:
        if isinstance(argument, str):
            return self.block(os.fsencode(argument) + b"\0")
        if isinstance(argument, bytes):
            return self.block(argument)
        if isinstance(argument, Result):
            if argument.entry in self._links:
                raise ValueError(f"the result of entry {argument.entry} is used twice")
            self._links[argument.entry] = (entry, position)
        return argument

    def argument_behind(self, ahead: int, position: int) -> Slot:
        """Return, as an argument of the next entry, where an argument of the entry ``ahead`` of that one lies."""
        return Slot(len(self._calls) + ahead, position)

    def block(self, content: bytes) -> Block:
        """Let ``content`` travel with the tape."""
        data = self._data
        offset, size = len(data), len(content)
        data += content
        if size % 8:
            data += bytes(-size % 8)
        return Block(offset, size)

    def space(self, size: int) -> Block:
        """Reserve ``size`` zero bytes that the calls fill."""
        return self.block(bytes(size))

    def store(self, where: Block, shift: int, content: bytes) -> None:
        """Change bytes of a block."""
        self._encoded = None
        self._data[where.offset + shift : where.offset + shift + len(content)] = content

    def point(self, where: Block, shift: int, target: Block) -> None:
        """Store, at encoding, the address of ``target`` into ``where`` (for structs with pointers)."""
        self._encoded = None
        self._pointers.append((where.offset + shift, target.offset))

    @property
    def size(self) -> int:
        """The bytes that :meth:`encode` returns."""
        return (len(self._calls) + _CLOSING) * ENTRY_SIZE + len(self._data)

    def closing_at(self, at: FarAddr) -> FarAddr:
        """Return where the closing entries lie in a tape encoded for ``at``."""
        return FarAddr(at + len(self._calls) * ENTRY_SIZE)

    def encode(self, at: FarAddr, pid: Pid, tid: Tid) -> bytes:
        """Encode for the address ``at`` in the task ``tid`` of ``pid``: entries, closing entries, data.

        The closing entries are played at the end and after a failure. The first stops the task with
        a signal of its own; the second, rt_sigreturn, is only reached when no tracer is there any more.
        """
        version = at, len(self._calls), len(self._data)
        if self._encoded is not None and self._encoded[0] == version:
            out = bytearray(self._encoded[1])
        else:
            out = self._encode(at)
            if self.is_repeated:
                self._encoded = version, bytes(out)
        _IDS.pack_into(out, len(self._calls) * ENTRY_SIZE + 8, pid, tid)
        return bytes(out)

    def _encode(self, at: FarAddr) -> bytearray:
        numbers = _numbers()
        data_at = self.closing_at(at) + _CLOSING * ENTRY_SIZE
        flat: list[int] = []
        links, may_fail = self._links, self._may_fail
        for entry, (name, arguments) in enumerate(self._calls):
            words = [
                data_at + argument.offset
                if type(argument) is Block
                else argument & _MASK64
                if isinstance(argument, int)
                else _MASK64
                if isinstance(argument, Result)
                else at + argument.entry * ENTRY_SIZE + 8 + argument.position * 8
                if isinstance(argument, Slot)
                else data_at + argument.offset  # type: ignore[union-attr]
                for argument in arguments
            ]
            link = links.get(entry)
            target = at + link[0] * ENTRY_SIZE + 8 + link[1] * 8 if link else 0
            flags = MAY_FAIL if entry in may_fail else 0
            flat += (numbers[name], *words, *_PADDING[len(words)], target, flags, _NOT_PLAYED)
        flat += (numbers["tgkill"], 0, 0, TAPE_SIGNAL, 0, 0, 0, 0, MAY_FAIL, 0)
        flat += (numbers["rt_sigreturn"], 0, 0, 0, 0, 0, 0, 0, MAY_FAIL, 0)
        out = bytearray(struct.pack(f"<{len(flat)}Q", *flat))
        out += self._data
        for where, target in self._pointers:
            struct.pack_into("<Q", out, data_at - at + where, data_at + target)
        return out

    def read_back(self, memory: bytes) -> Played:
        """Interpret the memory of a played tape; raise TapeError if it stopped early."""
        played = Played(self, memory)
        for entry, result in enumerate(played.results):
            if result < 0 and entry not in self._may_fail:
                raise TapeError(self, entry, -result, played)
        return played

    def calls(self) -> Iterator[tuple[str, tuple[Argument, ...]]]:
        """Yield every entry: the call's name and its arguments."""
        return iter(self._calls)

    def content(self, block: Block) -> bytes:
        """Return the bytes of a block as they will travel, but for the pointers in it."""
        return bytes(self._data[block.offset : block.offset + block.size])

    def entries(self) -> Iterator[str]:
        """Render every entry."""
        return (self.render_entry(entry) for entry in range(len(self._calls)))

    def render_entry(self, entry: int) -> str:
        """Render one entry as strace would."""
        name, arguments = self._calls[entry]
        shown: list[int | str | bytes] = []
        for argument in arguments:
            if isinstance(argument, int):
                shown.append(argument)
            elif isinstance(argument, Result):
                shown.append(f"${argument.entry}")
            elif isinstance(argument, Slot):
                shown.append(f"&{argument.entry}.{argument.position}")
            elif isinstance(argument, Block):
                shown.append(self.content(argument))
            else:
                shown.append("&data")
        return render_call(name, shown)


def _adding(name: str) -> Callable[..., Result]:
    def add(self: Tape, *arguments: Argument, may_fail: bool = False) -> Result:
        return self.call(name, *arguments, may_fail=may_fail)

    return add


for _name in syscalls.SYSCALLS:
    setattr(Tape, _name, _adding(_name))


def results_in(memory: bytes, calls: int) -> array[int]:
    """Return the results of so many entries of a tape that was played."""
    return array("q", memory[: calls * ENTRY_SIZE])[_RESULT_WORD :: ENTRY_SIZE // 8]


class Played:
    """The results of a tape that was played."""

    __slots__ = ("_data_at", "_memory", "results")

    def __init__(self, tape: Tape, memory: bytes) -> None:
        self._memory = memory
        self._data_at = (len(tape) + _CLOSING) * ENTRY_SIZE
        self.results = results_in(memory, len(tape))
        """Of every entry."""

    def result(self, which: int | Result) -> int:
        """Return an entry's result; a negative number is an errno that was allowed."""
        entry = which.entry if isinstance(which, Result) else which
        return self.results[entry]

    def outcome(self, entries: int) -> tuple[bytes, bytes]:
        """Return the results of the first so many entries, and all data, to be compared with another play's."""
        return self.results[:entries].tobytes(), self._memory[self._data_at :]

    def data(self, block: Block) -> bytes:
        """Return the bytes of a block after the play."""
        start = self._data_at + block.offset
        return self._memory[start : start + block.size]


_number_cache: dict[str, int] = {}


def _numbers() -> dict[str, int]:
    if not _number_cache:
        _number_cache.update(syscalls.numbers(machine()))
    return _number_cache
