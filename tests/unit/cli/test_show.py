"""orch show on an image that was made of records, without any process."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec
import pytest

from orchestrator import errors
from orchestrator.cli.show import main
from orchestrator.ids import ObjectId, Pid
from orchestrator.image.codec import encode_records
from orchestrator.image.writer import ImageWriter
from orchestrator.kinds.files.kind import Descriptor, FileTable
from orchestrator.kinds.memory.record import AddressSpace, PageRun, Vma
from orchestrator.kinds.task.attributes import ThreadAttributes
from orchestrator.kinds.task.credentials import Credentials
from orchestrator.kinds.task.filesystem import FilesystemContext
from orchestrator.kinds.task.process import OUTSIDE, Process, ProcessState, Thread
from orchestrator.snapshot import Clocks, Machine, Snapshot

ZERO = ObjectId(0)


def blank(kind: type[Any], **given: Any) -> Any:
    """Make a record whose fields are zero and empty, but for those that the test looks at."""
    nothing: dict[Any, Any] = {int: 0, bytes: b"", str: "", bool: False}
    for field in msgspec.structs.fields(kind):
        if field.required and field.name not in given:
            if field.type in nothing:
                given[field.name] = nothing[field.type]
            elif isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
                given[field.name] = blank(field.type)
            elif getattr(field.type, "__supertype__", None) is int:
                given[field.name] = ObjectId(0)
            elif get_origin(field.type) is tuple and get_args(field.type)[-1] is not ...:
                given[field.name] = (0,) * len(get_args(field.type))
            else:
                given[field.name] = () if get_origin(field.type) is tuple else []
    return kind(**given)


def thread(tid: int, name: bytes) -> Any:
    credentials = blank(Credentials, uids=(1000, 0, 0, 0), gids=(100, 0, 0, 0))
    return blank(Thread, tid=tid, attributes=blank(ThreadAttributes, name=name), credentials=credentials)


def state(stopped_by: int = 0) -> Any:
    return blank(ProcessState, stopped_by=stopped_by)


def snapshot() -> Snapshot:
    memory = blank(
        AddressSpace,
        vmas=[
            Vma(0x1000, 0x3000, 5, False, "file", of=ZERO),
            Vma(0x5000, 0x8000, 3, False, "anonymous", flags=("gd",), runs=(PageRun(0x5000, 4096, 0),)),
        ],
    )
    return Snapshot(
        orch="0.0",
        job="sim",
        root=Pid(10),
        machine=Machine(os.uname().machine, "6.0", "vdso", 0, "there"),
        clocks=Clocks(1, 2, 3),
        namespaces=[{"kind": "uts", "private": True, "body": {"type": "uts", "hostname": b"box", "domainname": b""}}],
        processes=[
            Process(
                Pid(10), OUTSIDE, Pid(10), Pid(10), 17, "parent", [thread(10, b"parent"), thread(11, b"t")], state()
            ),
            Process(
                Pid(12), Pid(10), Pid(12), Pid(10), 17, "chi\x1b[1mld", [thread(12, b"child")], state(stopped_by=19)
            ),
            Process(Pid(13), Pid(12), Pid(12), Pid(10), 17, "dead", [], None, exit_status=256),
        ],
        memories=[memory],
        file_tables=[FileTable(ZERO, [Descriptor(3, ZERO, True), Descriptor(4, ObjectId(1), False)])],
        files=[
            {"id": 0, "flags": 0, "position": 77, "body": {"type": "file", "path": "/bin/prog", "size": 9}},
            {
                "id": 1,
                "flags": 2,
                "position": 0,
                "body": {"type": "wormhole", "object": 0, "secret": b"\xff" * 99, "local": ["::1", 80, 0, 0]},
            },
        ],
        objects=[{"type": "wormhole-end", "content": {"size": 10, "extents": [[0, 4, 0], [6, 2, 4096]]}}],
        filesystems=[FilesystemContext(ZERO, "/work", "/", 18)],
        signal_actions=[],
        page_bytes=4096,
    )


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "sim.ckpt"
    with ImageWriter(path, architecture=os.uname().machine, page_size=4096) as writer:
        offset = writer.begin(encode_records(snapshot()), 4096)
        os.pwrite(writer.fd, b"x" * 4096, offset)
        writer.commit(durable=False, checksums=True)
    return path


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def test_the_whole_picture(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = shown(capsys, str(image))
    for words in (
        "job         sim, root 10",
        "3 processes, 3 threads",
        "     10 parent                   uid 1000, 2 threads, 4.0 KiB stored, in /work, session leader",
        "     12   chi\\x1b[1mld           stopped by SIGSTOP, uid 1000, 4.0 KiB stored, in /work, group leader",
        "     13     dead                 zombie, status 256",
        "memory of 10, 12: /bin/prog, 20.0 KiB mapped, 4.0 KiB stored",
        "000000001000-000000003000 r-xp    8.0 KiB             /bin/prog",
        "000000005000-000000008000 rw-p   12.0 KiB    4.0 KiB   gd",
        "files of 10, 12",
        "   3 #0    file         /bin/prog size=9  r at 77 close-on-exec",
        "wormhole     secret=99 bytes local=[::1]:80  rw",
        "uts     of its own  hostname=box",
    ):
        assert words in printed


def test_json_holds_all_of_it(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    described: dict[str, Any] = json.loads(shown(capsys, str(image), "--json"))
    assert [(process["pid"], process["depth"]) for process in described["processes"]] == [(10, 0), (12, 1), (13, 2)]
    assert described["objects"] == [{"id": 0, "kind": "wormhole-end", "record": {"content": {"size": 10, "stored": 6}}}]
    assert described["sizes"]["pages"] == 4096
    assert described["memories"][0]["stored"] == 4096


def test_some_parts_only(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = shown(capsys, str(image), "--only", "tree")
    assert "parent" in printed
    assert "memory of" not in printed
    assert "files of" not in printed


def test_verify_tells_what_was_compared(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "verified    4.0 KiB of pages" in shown(capsys, str(image), "--verify")


def test_a_damaged_page_is_found_by_verify_alone(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = bytearray(image.read_bytes())
    raw[raw.index(b"x" * 4096) + 100] ^= 1
    image.write_bytes(raw)
    shown(capsys, str(image))
    with pytest.raises(errors.ImageCorrupt):
        main([str(image), "--verify"])


@pytest.mark.parametrize(
    ("content", "error"),
    [(None, errors.ImageMissing), (b"", errors.NotAnImage), (b"#!/bin/sh\n" * 1000, errors.NotAnImage)],
    ids=["missing", "empty", "something else"],
)
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes | None, error: type[errors.OrchError]) -> None:
    path = tmp_path / "thing"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((error, errors.ImageTruncated) if content == b"" else error):
        main([str(path)])


def test_records_that_do_not_fit_are_named(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.ckpt"
    with ImageWriter(wrong, architecture=os.uname().machine, page_size=4096) as writer:
        writer.begin(encode_records({"orch": 7}), 0)
        writer.commit(durable=False)
    with pytest.raises(errors.ImageCorrupt, match="orch"):
        main([str(wrong)])
