"""What orch, a pager and its keeper agree on, in memory that all of them have."""

from __future__ import annotations

import mmap
import struct

_WORD = struct.Struct("=Q")
_KEEPER, _OVER, _BEGUN, _FILLING, _TOTAL = 0, 8, 16, 24, 32


class Helm:
    """A few words. Each is written at once."""

    def __init__(self, total: int) -> None:
        """``total``: how many bytes are missing at the beginning."""
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)
        self._set(_TOTAL, total)

    def _get(self, at: int) -> int:
        return int(_WORD.unpack_from(self._memory, at)[0])

    def _set(self, at: int, value: int) -> None:
        _WORD.pack_into(self._memory, at, value)

    @property
    def total(self) -> int:
        """How many bytes were missing at the beginning."""
        return self._get(_TOTAL)

    @property
    def keeper(self) -> int:
        """The process id of the keeper that takes over if the pager dies."""
        return self._get(_KEEPER)

    @keeper.setter
    def keeper(self, value: int) -> None:
        self._set(_KEEPER, value)

    @property
    def has_begun(self) -> bool:
        """Whether the job runs: from now on nobody but pager and keeper ends it."""
        return bool(self._get(_BEGUN))

    @has_begun.setter
    def has_begun(self, value: bool) -> None:
        self._set(_BEGUN, value)

    @property
    def is_filling(self) -> bool:
        """Whether pages are put into place that nobody waits for."""
        return bool(self._get(_FILLING))

    @is_filling.setter
    def is_filling(self, value: bool) -> None:
        self._set(_FILLING, value)

    @property
    def is_over(self) -> bool:
        """Whether the pager has ended because there is nothing left to do."""
        return bool(self._get(_OVER))

    @is_over.setter
    def is_over(self, value: bool) -> None:
        self._set(_OVER, value)
