"""Find the open files that the one process which has them may open itself, if the depot cannot hold all of a job's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestrator.ids import ObjectId, Pid
from orchestrator.kinds.files.kind import FileTable, OpenFile
from orchestrator.kinds.files.registry import kind_of

_SEVERAL = ObjectId(-1)


def files_apart(
    files: Sequence[OpenFile],
    objects: Sequence[Any],
    tables: Iterable[FileTable],
    owners: Mapping[ObjectId, Pid],
    elsewhere: Iterable[ObjectId],
) -> dict[ObjectId, ObjectId]:
    """Return such files, with the table that each is in.

    What hangs together stays together: the ends of a pipe, an epoll and what it waits for. ``owners``: the process
    that places each table. ``elsewhere``: files that are needed outside of tables, too.
    """
    holders = _holders(tables)
    holders.update(dict.fromkeys(elsewhere, _SEVERAL))
    groups = _Groups(len(files))
    ends: dict[ObjectId, ObjectId] = {}
    for file in files:
        shared = getattr(file.body, "object", None)
        if shared is not None and (end := ends.setdefault(shared, file.id)) != file.id:
            groups.join(end, file.id)
        others = kind_of(file).others
        if others is not None:
            for other in others(file, objects):
                groups.join(file.id, other)
    common: dict[ObjectId, ObjectId] = {}
    for file in files:
        table = holders.get(file.id, _SEVERAL)
        may_open = kind_of(file).may_open
        if table not in owners or file.locks or may_open is None or not may_open(file, objects, owners[table]):
            table = _SEVERAL
        group = groups.of(file.id)
        if common.setdefault(group, table) != table:
            common[group] = _SEVERAL
    return {file.id: table for file in files if (table := common[groups.of(file.id)]) != _SEVERAL}


def _holders(tables: Iterable[FileTable]) -> dict[ObjectId, ObjectId]:
    """Say for each open file which table has it; ``_SEVERAL`` if more than one does."""
    holders: dict[ObjectId, ObjectId] = {}
    for table in tables:
        for descriptor in table.descriptors:
            if holders.setdefault(descriptor.file, table.id) != table.id:
                holders[descriptor.file] = _SEVERAL
    return holders


class _Groups:
    """Sets of files that grow together."""

    def __init__(self, count: int) -> None:
        self._above = [ObjectId(number) for number in range(count)]

    def of(self, file: ObjectId) -> ObjectId:
        """Return the one file that stands for all of its group."""
        above = self._above
        while above[file] != file:
            above[file] = above[above[file]]
            file = above[file]
        return file

    def join(self, a: ObjectId, b: ObjectId) -> None:
        self._above[self.of(a)] = self.of(b)
