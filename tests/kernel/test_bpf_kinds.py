"""BPF maps that are not the job's alone, or of which the kernel shows too little."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import struct
from pathlib import Path

import pytest

from harness.replay import Image, Process, captured
from orchestrator.ids import ObjectId
from orchestrator.kinds.files.leak import outside_holders, report_leaks
from orchestrator.kinds.files.table import FileCollector
from orchestrator.linux import bpf
from orchestrator.linux.call import syscall
from orchestrator.linux.proc_maps import read_maps

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root")

_NR_bpf = 321
_PROG_LOAD, _SOCKET_FILTER = 5, 1
_RINGBUF, _F_MMAPABLE = 27, 1 << 10


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return syscall(_NR_bpf, command, ctypes.addressof(buffer), len(attributes))


def make_map(type_: int, key: int = 4, value: int = 8, entries: int = 4, flags: int = 0, inner: int = 0) -> int:
    return _bpf(bpf.MAP_CREATE, struct.pack("=IIIIII", type_, key, value, entries, flags, inner))


def load_program(map_fd: int) -> int:
    """Load a filter that names a map and lets nothing pass."""
    code = struct.pack("=BBhi", 0x18, 0x11, 0, map_fd) + bytes(8) + struct.pack("=BBhi", 0xB7, 0, 0, 0)
    code = ctypes.create_string_buffer(code + struct.pack("=BBhi", 0x95, 0, 0, 0)).raw[:-1]
    text, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
    return _bpf(
        _PROG_LOAD,
        struct.pack("=IIQQ", _SOCKET_FILTER, len(code) // 8, ctypes.addressof(text), ctypes.addressof(licence)),
    )


def said(image: Image) -> list[str]:
    blockers = image.scope.blockers
    return [str(blocker) for blocker in (*blockers.unsupported, *blockers.outside)]


def test_maps_that_cannot_be_saved(tmp_path: Path) -> None:
    def setup() -> None:
        inner = make_map(bpf.ARRAY)
        assert make_map(_RINGBUF, 0, 0, mmap.PAGESIZE) == 1
        assert make_map(bpf.ARRAY_OF_MAPS, 4, 4, inner=inner) == 2
        queue = make_map(bpf.QUEUE, 0)
        bpf.put_in(queue, b"12345678")
        _bpf(bpf.MAP_FREEZE, struct.pack("=I", queue))
        mapped = make_map(bpf.ARRAY, flags=_F_MMAPABLE)
        setup.mapping = mmap.mmap(mapped, mmap.PAGESIZE)  # type: ignore[attr-defined]

    original = Process(setup)
    with contextlib.closing(original):
        line = next(one for one in read_maps(original.pid) if one.path == b"anon_inode:bpf-map")

        def also(collector: FileCollector) -> list[ObjectId]:
            assert collector.mapped(original.pid, line, writable=True) == -1
            return []

        with captured([original], tmp_path / "image", also=also) as image:
            lines = said(image)
            reasons = ["a map of type 27", "it holds no map yet", "it is frozen", "of which map it is"]
            assert len(lines) == len(reasons)
            for line_, reason in zip(lines, reasons, strict=True):
                assert reason in line_


def test_a_map_that_a_program_uses(tmp_path: Path) -> None:
    original = Process(lambda: load_program(make_map(bpf.HASH)))
    with contextlib.closing(original), captured([original], tmp_path / "image") as image:
        lines = said(image)
        assert ["fd 1 (anon_inode:bpf-prog): BPF objects" in line for line in lines] == [True, False]
        assert "fd 0 (anon_inode:bpf-map): BPF program " in lines[1]


def test_a_map_that_somebody_outside_has_too(tmp_path: Path) -> None:
    def opened(number: int) -> Process:
        return Process(lambda: bpf.open_map(number))

    fd = make_map(bpf.ARRAY)
    number = bpf.map_info(fd).id
    with contextlib.closing(opened(number)) as inside, contextlib.closing(opened(number)) as outside:
        os.close(fd)
        holders = outside_holders([inside.pid])
        with captured([inside], tmp_path / "image") as image:
            assert said(image) == []
            report_leaks(image.scope, holders)
            assert [f"shared with {outside.pid} " in line for line in said(image)] == [True]


def test_a_map_that_is_pinned(tmp_path: Path) -> None:
    top = tmp_path / "bpf"
    top.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"bpf", os.fsencode(top), b"bpf", 0, None) == 0
    try:
        fd = make_map(bpf.ARRAY)
        number = bpf.map_info(fd).id
        path = ctypes.create_string_buffer(os.fsencode(top / "kept"))
        _bpf(6, struct.pack("=QI", ctypes.addressof(path), fd))
        os.close(fd)
        original = Process(lambda: bpf.open_map(number))
        with contextlib.closing(original), captured([original], tmp_path / "image") as image:
            assert [f"pinned as {top}/kept" in line for line in said(image)] == [True]
    finally:
        libc.umount2(os.fsencode(top), 2)
