from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from orchestrator.errors import ImageCorrupt, ImageVersion
from orchestrator.ids import DepotFd, ObjectId
from orchestrator.image.codec import decode_records, encode_records
from orchestrator.kinds.files.depot import claims, first_holders, leave_depot, place_table, rebuild_depot, settle_table
from orchestrator.kinds.files.epoll import EventPoll, Registration
from orchestrator.kinds.files.eventfd import EventFd
from orchestrator.kinds.files.external import External
from orchestrator.kinds.files.kind import Depot, Descriptor, FileTable, OpenFile
from orchestrator.kinds.files.pipe import PipeBuffer, PipeEnd
from orchestrator.kinds.files.references import check_references
from orchestrator.kinds.files.registry import KINDS, FileBody, FileObject, FileRecord, kind_of
from orchestrator.kinds.files.slots import Slots
from orchestrator.kinds.files.timerfd import TimerFd
from orchestrator.kinds.memory.shared import SharedMemory
from orchestrator.kinds.record import Content, Extent, Record
from orchestrator.kinds.sockets.unknown import OtherSocket
from orchestrator.tape.build import Tape


def members(union: object) -> set[type]:
    return set(get_args(union))


def test_every_kind_is_decoded_and_has_a_tag_of_its_own() -> None:
    # The kind of all other sockets refuses every one of them.
    assert members(FileBody) == {kind.record for kind in KINDS} - {OtherSocket}
    tags = [msgspec.inspect.type_info(record).tag for record in members(FileBody) | members(FileObject)]  # type: ignore[attr-defined]
    assert all(isinstance(tag, str) for tag in tags)
    assert len(set(tags)) == len(tags)


def test_every_object_of_a_kind_is_decoded() -> None:
    for kind in KINDS:
        assert set(kind.objects) <= members(FileObject), kind.name


def file(number: int, body: Record, flags: int = 2) -> FileRecord:
    return FileRecord(id=ObjectId(number), flags=flags, position=0, body=body)  # type: ignore[arg-type]


def test_a_file_comes_back_as_what_it_was() -> None:
    files = [
        file(0, EventFd(3, True)),
        file(1, EventPoll([Registration(ObjectId(0), 4, 1 << 30, 7)])),
        file(2, TimerFd(1, 0, 0, 5, 6)),
    ]
    assert decode_records(encode_records(files), list[FileRecord]) == files


def test_an_unknown_kind_of_file_is_refused_by_name() -> None:
    raw = msgspec.msgpack.encode([{"id": 0, "flags": 0, "position": 0, "body": {"type": "hologram"}}])
    with pytest.raises(ImageVersion, match="hologram"):
        decode_records(raw, list[FileRecord])
    raw = msgspec.msgpack.encode([{"id": 0, "flags": 0, "position": 0, "body": {"type": "eventfd", "count": "many"}}])
    with pytest.raises(ImageCorrupt, match="count"):
        decode_records(raw, list[FileRecord])


def depot(files: list[OpenFile], objects: list[Record]) -> Depot:
    by_id = {one.id: one for one in files}
    return Depot(Tape("depot"), Slots(by_id, (), lowest=499), DepotFd(900), 4096, by_id, objects)


def numbers(tables: list[FileTable], files: list[OpenFile], limit: int = 1 << 20) -> tuple[list[int], Slots]:
    slots = Slots([one.id for one in files], claims(tables, files), limit=limit)
    return [slots.of(one.id) for one in files], slots


def table(number: int, *descriptors: tuple[int, int]) -> FileTable:
    return FileTable(ObjectId(number), [Descriptor(fd, ObjectId(of), of % 2 == 1) for fd, of in descriptors])


def test_files_stand_where_the_job_has_them_or_above_all_numbers_that_matter() -> None:
    events: list[OpenFile] = [file(number, EventFd(0, False)) for number in range(4)]
    poll = file(4, EventPoll([Registration(ObjectId(0), 1234, 1, 0), Registration(ObjectId(1), 701, 1, 0)]))
    tables = [table(0, (3, 0), (700, 0), (701, 1), (702, 2)), table(1, (702, 2), (703, 3), (800, 4))]
    assert numbers(tables, events)[0] == [700, 701, 702, 703]
    assert numbers(tables[:1], [*events[:3], poll])[0] == [700, 701, 702, 1235]
    tables.append(table(2, (700, 3)))  # somebody else's number
    assert numbers(tables, events)[0] == [801, 701, 702, 703]
    assert numbers([table(0, (5, 0))], events[:1])[0] == [64]  # below, numbers are free for what is opened
    assert numbers([], [])[1].highest < 64


def test_where_no_room_is_above_files_stand_between() -> None:
    events: list[OpenFile] = [file(number, EventFd(0, False)) for number in range(3)]
    tables = [table(0, (1, 0), (2, 1), (3, 2), *((number, 0) for number in range(20, 100)))]
    assert numbers(tables, events, 101)[0] == [20, 100, 17]
    found, slots = numbers(tables, events, 1000)
    assert found == [20, 100, 101]
    assert slots.highest == 101
    assert numbers(tables, events, 100)[1].highest < 100
    full = [table(0, (1, 0), (2, 1), (3, 2), *((number, 0) for number in range(16, 100)))]
    assert numbers(full, events, 100)[1].highest >= 100


def test_what_a_table_has_not_is_closed() -> None:
    events: list[OpenFile] = [file(number, EventFd(0, False)) for number in range(3)]
    tables = [table(0, (3, 0), (30, 0), (31, 1), (40, 2)), table(1, (3, 0), (30, 0), (40, 2))]
    _, slots = numbers(tables, events)
    tapes = []
    for one in tables:
        tape = Tape()
        place_table(one, tape, slots)
        leave_depot(one, tape, slots)
        tapes.append(list(tape.entries()))
    assert tapes[0] == [
        "dup3(30, 3, 0)",
        "fcntl(30, F_SETFD, 0)",
        "fcntl(40, F_SETFD, 0)",
        "close_range(41, 4294967295, 0)",
    ]
    assert tapes[1] == [*tapes[0][:3], "close_range(31, 39, 0)", tapes[0][3]]
    last = Tape()
    slots.close_the_rest(last)
    ranges = ["close_range(0, 29, 0)", "close_range(32, 39, 0)", "close_range(41, 4294967295, 0)"]
    assert list(last.entries()) == ranges


def test_a_pipe_is_made_once_and_both_ends_kept() -> None:
    files: list[OpenFile] = [
        file(0, PipeEnd(ObjectId(0)), flags=1),
        file(1, EventFd(2, False)),
        file(2, PipeEnd(ObjectId(0)), flags=0o4000),
    ]
    made = depot(files, [PipeBuffer(65536, [b"contents"])])
    rebuild_depot(files, made)
    lines = list(made.tape.entries())
    assert [line.partition("(")[0] for line in lines].count("pipe2") == 1
    assert 'write(1, "contents", 8)' in lines
    assert "dup3(1, 500, O_CLOEXEC)" in lines
    assert "dup3(0, 502, O_CLOEXEC)" in lines
    assert lines.index("dup3(0, 502, O_CLOEXEC)") < lines.index("close(0)") < lines.index("eventfd2(2, 0x80000)")


def test_epolls_are_filled_when_all_files_are_open() -> None:
    files: list[OpenFile] = [
        file(0, EventPoll([Registration(ObjectId(1), 9, 1, 77)])),
        file(1, EventFd(0, False)),
    ]
    made = depot(files, [])
    rebuild_depot(files, made)
    names = [line.partition("(")[0] for line in made.tape.entries()]
    assert names.index("epoll_ctl") > names.index("eventfd2")
    assert "dup3(501, 9, O_CLOEXEC)" in list(made.tape.entries())


def test_tables_are_placed_and_settled_once() -> None:
    timer = file(0, TimerFd(1, 0, 0, 10**9, 0))
    tables = [
        FileTable(ObjectId(0), [Descriptor(5, ObjectId(0), True), Descriptor(6, ObjectId(0), False)]),
        FileTable(ObjectId(1), [Descriptor(0, ObjectId(0), False)]),
    ]
    first = first_holders(tables)
    assert first == {0: (0, 5)}
    tapes = []
    for table in tables:
        tape = Tape()
        slots = Slots([timer.id], (), lowest=499)
        place_table(table, tape, slots)
        settle_table(table, tape, slots, {timer.id: timer}, [], first)
        tapes.append(list(tape.entries()))
    assert tapes[0][:2] == ["dup3(500, 5, O_CLOEXEC)", "dup3(500, 6, 0)"]
    assert [line.partition("(")[0] for line in tapes[0][2:]] == ["timerfd_settime"]
    assert tapes[1] == ["dup3(500, 0, 0)"]


def test_kinds_are_found_by_their_records() -> None:
    assert kind_of(file(0, EventFd(0, False))).name == "eventfd"
    assert kind_of(file(0, External("stdio[0]"))).name == "external file"


def test_records_must_fit_together() -> None:
    pipe, poll = file(0, PipeEnd(ObjectId(0))), file(1, EventPoll([Registration(ObjectId(0), 4, 1, 0)]))
    table = FileTable(ObjectId(0), [Descriptor(0, ObjectId(0), False), Descriptor(1, ObjectId(1), True)])
    objects: list[Record] = [PipeBuffer(4096, []), SharedMemory(None, Content(8192, [Extent(4096, 4096, 0)]))]
    check_references([pipe, poll], [table], objects, 4096)
    replace = msgspec.structs.replace
    shared = SharedMemory(None, Content(8192, [Extent(4096, 8192, 0)]))
    wrong: list[tuple[list[OpenFile], FileTable, list[Record], int, str]] = [
        ([poll, pipe], table, objects, 4096, "calls itself"),
        ([file(0, PipeEnd(ObjectId(2))), poll], table, objects, 4096, "open file 0 .* object 2"),
        ([file(0, PipeEnd(ObjectId(-1))), poll], table, objects, 4096, "object -1"),
        ([file(0, PipeEnd(ObjectId(1))), poll], table, objects, 4096, "not what it needs"),
        ([replace(pipe, position=-1), poll], table, objects, 4096, "position -1"),
        ([pipe], table, objects, 4096, "refers to open file 1, and there are 1"),
        (
            [pipe, file(1, EventPoll([Registration(ObjectId(5), 4, 1, 0)]))],
            table,
            objects,
            4096,
            "epoll 1 .* refers to open file 5",
        ),
        ([pipe, poll], FileTable(ObjectId(0), [Descriptor(-3, ObjectId(0), False)]), objects, 4096, "descriptor -3"),
        ([pipe, poll], FileTable(ObjectId(0), [Descriptor(3, ObjectId(0), False)] * 2), objects, 4096, "twice"),
        ([pipe, poll], table, objects, 0, r"object 1 \(SharedMemory\)"),
        ([pipe, poll], table, [objects[0], shared], 1 << 20, "contents where there are none"),
    ]
    for files, one, things, page_bytes, message in wrong:
        with pytest.raises(ImageCorrupt, match=message):
            check_references(files, [one], things, page_bytes)
