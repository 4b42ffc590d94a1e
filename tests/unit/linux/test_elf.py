"""The build id of a file, whatever the file is."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.linux.elf import read_build_id


def of(path: Path, content: bytes) -> bytes:
    path.write_bytes(content)
    with path.open("rb") as file:
        return read_build_id(file.fileno())


@pytest.mark.parametrize("how", ["--build-id=0x0123456789abcdef", "--build-id=none"])
def test_what_the_linker_wrote(tmp_path: Path, how: str) -> None:
    source, program = tmp_path / "x.c", tmp_path / "x"
    source.write_text("int main(void) { return 0; }\n")
    subprocess.run(["gcc", f"-Wl,{how}", "-o", program, source], check=True)
    with program.open("rb") as file:
        assert read_build_id(file.fileno()) == (bytes.fromhex("0123456789abcdef") if "0x" in how else b"")


def test_of_this_interpreter() -> None:
    with open(sys.executable, "rb") as file:
        assert len(read_build_id(file.fileno())) in (0, 16, 20)


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"#!/bin/sh\n", b"\x7fELF\x02\x01" + bytes(10), bytes(5000)])
def test_of_what_has_none(tmp_path: Path, content: bytes) -> None:
    assert of(tmp_path / "file", content) == b""


@given(st.binary(max_size=300), st.integers(0, 1 << 64), st.integers(0, 0xFFFF))
def test_damaged_headers_are_no_trouble(tail: bytes, offset: int, count: int) -> None:
    header = bytearray(b"\x7fELF\x02\x01" + bytes(58))
    struct.pack_into("<Q", header, 32, offset % (1 << 62))
    struct.pack_into("<HH", header, 54, 56, count)
    segment = struct.pack("<IIQQQQQQ", 4, 0, 120, 0, 0, len(tail), 0, 4)
    fd = os.memfd_create("elf")
    try:
        os.write(fd, bytes(header) + segment + tail)
        assert isinstance(read_build_id(fd), bytes)
    finally:
        os.close(fd)
