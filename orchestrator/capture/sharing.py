"""Find which processes share a kernel structure (memory, file table, ...) with kcmp(2)."""

from __future__ import annotations

from orchestrator.ids import HostPid, ObjectId
from orchestrator.linux.kcmp import kcmp


class SharedStructures:
    """Numbers the distinct structures of one type, by binary search in the kernel's own order."""

    def __init__(self, kind: int) -> None:
        self._kind = kind
        self._sorted: dict[ObjectId | None, list[tuple[HostPid, ObjectId]]] = {}
        self._count = 0

    def identify(self, pid: HostPid, within: ObjectId | None = None) -> tuple[ObjectId, bool]:
        """Return the number of a process's structure, and whether it is seen for the first time.

        ``within``: another structure, which all share that share this one.
        """
        alike = self._sorted.setdefault(within, [])
        low, high = 0, len(alike)
        while low < high:
            middle = (low + high) // 2
            other, known = alike[middle]
            order = kcmp(pid, other, self._kind)
            if order == 0:
                return known, False
            if order == 1:
                high = middle
            else:
                low = middle + 1
        new = ObjectId(self._count)
        self._count += 1
        alike.insert(low, (pid, new))
        return new, True
