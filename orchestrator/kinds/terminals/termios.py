"""Settings of a terminal, as struct termios2: what of them matters for moving data. See termios(3)."""

from __future__ import annotations

import struct
from typing import NamedTuple

_termios2 = struct.Struct("=4I20s2I")  # c_iflag c_oflag c_cflag c_lflag, c_line and c_cc[19], c_ispeed c_ospeed
assert _termios2.size == 44

IXON = 0o2000
ICANON, EXTPROC, _IEXTEN = 0o2, 0o200000, 0o100000
_CC_AT = 1
_VEOF, _VTIME, _VMIN, VSTART, VSTOP, _VLNEXT = 4, 5, 6, 8, 9, 15
_NCCS = 19


class Settings(NamedTuple):
    """struct termios2, taken apart."""

    iflag: int
    oflag: int
    cflag: int
    lflag: int
    line_and_characters: bytes
    ispeed: int
    ospeed: int

    @classmethod
    def of(cls, raw: bytes) -> Settings:
        """Take it apart."""
        return cls(*_termios2.unpack(raw))

    def pack(self) -> bytes:
        """Put it together."""
        return _termios2.pack(*self)

    def character(self, which: int) -> int:
        """Return one of the control characters, 0 for none."""
        return self.line_and_characters[_CC_AT + which]

    @property
    def is_canonical(self) -> bool:
        """Whether input is read line by line."""
        return bool(self.lflag & ICANON) and not self.lflag & EXTPROC

    def inert(self, *, canonical: bool, stoppable: bool = False, end: int = 0, quote: int = 0, stop: int = 0) -> bytes:
        """Return settings under which nothing is echoed, changed or interpreted.

        In canonical mode ``end`` ends a line without being in it, as ^D does, and what follows ``quote`` is
        an ordinary character. ``stoppable`` keeps output stopped that is; ``stop`` stops it.
        """
        characters = bytearray(20)
        characters[0] = self.line_and_characters[0]
        characters[_CC_AT + _VEOF] = end if canonical else 0
        characters[_CC_AT + _VLNEXT] = quote
        characters[_CC_AT + VSTOP] = stop
        lflag = self.lflag & EXTPROC | (ICANON | (_IEXTEN if quote else 0) if canonical else 0)
        iflag = IXON if stoppable else 0
        return self._replace(iflag=iflag, oflag=0, lflag=lflag, line_and_characters=bytes(characters)).pack()
