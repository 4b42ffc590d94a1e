"""Find which processes share a kernel structure (memory, file table, ...) with kcmp(2)."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.ids import HostPid, ObjectId
from orchestrator.linux.kcmp import kcmp


class SharedStructures:
    """Numbers the distinct structures of one type, by binary search in the kernel's own order."""

    def __init__(self, kind: int, told: Mapping[HostPid, HostPid] | None = None) -> None:
        """``told``: of some processes the first of those that share it."""
        self._kind = kind
        self._told = told or {}
        self._firsts: dict[HostPid, ObjectId] = {}
        """Of what we were told, and have given a number, but not looked at."""
        self._looks = False
        self._sorted: dict[ObjectId | None, list[tuple[HostPid, ObjectId]]] = {}
        self._count = 0

    def identify(self, pid: HostPid, within: ObjectId | None = None) -> tuple[ObjectId, bool]:
        """Return the number of a process's structure, and whether it is seen for the first time.

        ``within``: another structure, which all share that share this one.
        """
        first = self._told.get(pid) if within is None else None
        if first is not None and not self._looks:
            known = self._firsts.get(first)
            if known is None:
                known = self._firsts[first] = ObjectId(self._count)
                self._count += 1
                return known, True
            return known, False
        if within is None and not self._looks:
            self._looks = True
            for first, known in self._firsts.items():
                self._find(first, None, known)
        found = self._find(pid, within, ObjectId(self._count))
        is_new = found == self._count
        self._count += is_new
        return found, is_new

    def _find(self, pid: HostPid, within: ObjectId | None, new: ObjectId) -> ObjectId:
        """Return the number of a structure; it is ``new`` if it was not seen before."""
        alike = self._sorted.setdefault(within, [])
        low, high = 0, len(alike)
        while low < high:
            middle = (low + high) // 2
            other, known = alike[middle]
            order = kcmp(pid, other, self._kind)
            if order == 0:
                return known
            if order == 1:
                high = middle
            else:
                low = middle + 1
        alike.insert(low, (pid, new))
        return new
