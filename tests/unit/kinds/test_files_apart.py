from __future__ import annotations

from typing import Any

from orchestrator.ids import ObjectId, Pid
from orchestrator.kinds.files.apart import files_apart
from orchestrator.kinds.files.epoll import EventPoll, Registration
from orchestrator.kinds.files.eventfd import EventFd
from orchestrator.kinds.files.inotify import Inotify, Watch
from orchestrator.kinds.files.kind import Descriptor, FileTable, OpenFile
from orchestrator.kinds.files.locks import FileLock
from orchestrator.kinds.files.memfd import MemFd
from orchestrator.kinds.files.pipe import PipeBuffer, PipeEnd
from orchestrator.kinds.files.regular import NamedFile
from orchestrator.kinds.sockets.options import SocketOptions
from orchestrator.kinds.sockets.unix_queue import Credentials, Message
from orchestrator.kinds.sockets.unix_records import UnixEnd, UnixPair, UnixPairEnd

OPTIONS = SocketOptions(0, 0, 0, [])
NAMED = NamedFile("/a", 0o100000, 0, 0)


def apart(bodies: list[Any], tables: list[list[int]], objects: list[Any] | None = None, **more: Any) -> set[int]:
    files = [OpenFile(ObjectId(number), 2, 0, body) for number, body in enumerate(bodies)]
    return apart_of(files, tables, objects, **more)


def apart_of(
    files: list[OpenFile], tables: list[list[int]], objects: list[Any] | None = None, elsewhere: tuple[int, ...] = ()
) -> set[int]:
    records = [
        FileTable(ObjectId(number), [Descriptor(fd, ObjectId(of), False) for fd, of in enumerate(table)])
        for number, table in enumerate(tables)
    ]
    owners = {record.id: Pid(10 + record.id) for record in records}
    found = files_apart(files, objects or [], records, owners, [ObjectId(of) for of in elsewhere])
    assert all(of in tables[table] for of, table in found.items())
    return set(map(int, found))


def test_what_only_one_table_has_may_be_opened_by_its_process() -> None:
    assert apart([EventFd(0, False), EventFd(0, False), NAMED], [[0, 1], [1, 2]]) == {0, 2}
    assert apart([NAMED, NAMED], [[0, 1]], elsewhere=(1,)) == {0}
    assert apart([NAMED], []) == set()


def test_what_hangs_together_stays_together() -> None:
    ends = [PipeEnd(ObjectId(0)), PipeEnd(ObjectId(0))]
    assert apart(ends, [[0, 1]], [PipeBuffer(4096, [])]) == {0, 1}
    assert apart(ends, [[0], [1]], [PipeBuffer(4096, [])]) == set()
    poll = EventPoll([Registration(ObjectId(1), 4, 1, 0)])
    assert apart([poll, EventFd(0, False)], [[0, 1], []]) == {0, 1}
    assert apart([poll, EventFd(0, False)], [[0, 1], [1]]) == set()
    assert apart([poll, EventFd(0, False)], [[0], [1]]) == set()


def test_what_needs_the_first_process_is_left_to_it() -> None:
    assert apart([MemFd(ObjectId(0))], [[0]], [None]) == set()
    assert apart([Inotify([Watch(1, "", 2, ObjectId(1))]), NAMED, NAMED], [[0, 1, 2]]) == {2}
    locked = OpenFile(ObjectId(0), 2, 0, NAMED, locks=(FileLock(whole=True, type=1),))
    assert apart_of([locked], [[0]]) == set()


def pair(who: Credentials | None, queue: list[Message]) -> UnixPair:
    return UnixPair(1, (UnixEnd(7, b"", 0, queue, OPTIONS, (0, 0), who), UnixEnd(8, b"", 0, [], OPTIONS, (0, 0), who)))


def test_pairs_of_sockets_are_made_by_who_made_them() -> None:
    ends = [UnixPairEnd(ObjectId(0), 0), UnixPairEnd(ObjectId(0), 1), NAMED]
    assert apart(ends, [[0, 1, 2]], [pair(Credentials(10, 0, 0), [])]) == {0, 1, 2}
    assert apart(ends, [[0, 1, 2]], [pair(Credentials(11, 0, 0), [])]) == {2}
    assert apart(ends, [[0, 1, 2]], [pair(Credentials(10, 5, 0), [])]) == {2}
    assert apart(ends, [[0, 1, 2]], [pair(None, [Message(b"x", files=(ObjectId(2),))])]) == set()
