from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
from pathlib import Path

import psutil
import pytest

from orchestrator.linux.proc_maps import (
    MapLine,
    VmFlags,
    parse_maps,
    parse_smaps_flags,
    read_maps,
    read_smaps_flags,
)

_PAGE = mmap.PAGESIZE
_MAP_GROWSDOWN = 0x100
_MAP_HUGETLB = 0x40000
_MAP_NORESERVE = 0x4000
_PR_SET_VMA = 0x53564D41
_libc = ctypes.CDLL(None, use_errno=True)


def _address(memory: mmap.mmap) -> int:
    anchor = ctypes.c_char.from_buffer(memory)
    address = ctypes.addressof(anchor)
    del anchor
    return address


def _own(address: int) -> MapLine:
    return next(line for line in read_maps(os.getpid()) if line.start <= address < line.end)


def _own_flags(address: int) -> tuple[MapLine, VmFlags]:
    return next(pair for pair in read_smaps_flags(os.getpid()) if pair[0].start <= address < pair[0].end)


def _anonymous(pages: int = 4, flags: int = 0) -> mmap.mmap:
    return mmap.mmap(-1, pages * _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | flags)


def _permissions(line: MapLine) -> str:
    return (
        ("r" if line.prot & mmap.PROT_READ else "-")
        + ("w" if line.prot & mmap.PROT_WRITE else "-")
        + ("x" if line.prot & mmap.PROT_EXEC else "-")
        + ("s" if line.shared else "p")
    )


def test_maps_agree_with_psutil(child: subprocess.Popen[bytes]) -> None:
    ours = [
        (f"{line.start:x}-{line.end:x}", _permissions(line), line.path.decode() or "[anon]")
        for line in read_maps(child.pid)
    ]
    theirs = [
        (
            "-".join(part.lstrip("0") for part in entry.addr.split("-")),
            entry.perms,
            entry.path,
        )
        for entry in psutil.Process(child.pid).memory_maps(grouped=False)
    ]
    assert ours == theirs
    assert len(ours) > 10


def test_maps_and_smaps_tell_the_same(child: subprocess.Popen[bytes]) -> None:
    maps = read_maps(child.pid)
    smaps = read_smaps_flags(child.pid)
    assert [line._replace(page_size=0) for line, _ in smaps] == maps
    assert {line.page_size for line, _ in smaps} == {_PAGE}
    for line, flags in smaps:
        assert ("rd" in flags) == bool(line.prot & mmap.PROT_READ)
        assert ("wr" in flags) == bool(line.prot & mmap.PROT_WRITE)
        assert ("ex" in flags) == bool(line.prot & mmap.PROT_EXEC)
        assert ("gd" in flags) == (line.path == b"[stack]")


@pytest.mark.parametrize(
    "name",
    [b"plain", b"with space", b"new\nline", b"\nVmFlags: rd", b"  x", b"caf\xc3\xa9\xff", b"x (deleted) y", b"\t"],
)
@pytest.mark.parametrize("deleted", [False, True])
def test_any_file_name(tmp_path: Path, name: bytes, deleted: bool) -> None:
    path = os.path.join(os.fsencode(tmp_path), name)
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.truncate(fd, 3 * _PAGE)
    memory = mmap.mmap(fd, 2 * _PAGE, offset=_PAGE)
    status = os.fstat(fd)
    os.close(fd)
    if deleted:
        os.unlink(path)
    address = _address(memory)
    line, (smaps_line, flags) = _own(address), _own_flags(address)
    memory.close()
    assert line.path == path
    assert line.deleted == deleted
    assert line.offset == _PAGE
    assert line.shared
    assert line.prot == mmap.PROT_READ | mmap.PROT_WRITE
    assert (line.inode, os.makedev(*line.dev)) == (status.st_ino, status.st_dev)
    assert smaps_line == line._replace(page_size=_PAGE)
    assert "sh" in flags


def test_memory_without_a_path() -> None:
    memory = _anonymous()
    line = _own(_address(memory))
    memory.close()
    assert (line.path, line.inode, line.dev, line.deleted, line.shared) == (b"", 0, (0, 0), False, False)


def test_named_and_shared_anonymous_memory() -> None:
    memory = _anonymous()
    named = _libc.prctl(
        _PR_SET_VMA, 0, ctypes.c_ulong(_address(memory)), ctypes.c_ulong(len(memory)), b"a name (deleted)"
    )
    line = _own(_address(memory))
    memory.close()
    shared = mmap.mmap(-1, _PAGE)
    shared_line = _own(_address(shared))
    shared.close()
    assert shared_line.shared
    assert shared_line.deleted
    assert shared_line.path == b"/dev/zero"
    if named != 0:
        pytest.skip("the kernel has no CONFIG_ANON_VMA_NAME")
    assert (line.path, line.deleted) == (b"[anon:a name (deleted)]", False)


@pytest.mark.parametrize(("advice", "code"), [(10, "dc"), (16, "dd"), (14, "hg"), (15, "nh"), (18, "wf"), (12, "mg")])
def test_flags_of_madvise(advice: int, code: str) -> None:
    memory = _anonymous()
    try:
        memory.madvise(advice)
    except OSError as error:
        pytest.skip(f"madvise: {error}")
    line, flags = _own_flags(_address(memory))
    length = len(memory)
    memory.close()
    assert code in flags
    assert line.end - line.start == length


def test_flags_of_a_stack_like_mapping() -> None:
    memory = _anonymous(flags=_MAP_GROWSDOWN | _MAP_NORESERVE)
    _, flags = _own_flags(_address(memory))
    memory.close()
    assert "gd" in flags


def test_page_size_of_huge_pages() -> None:
    size = 2 << 20
    try:
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_HUGETLB | _MAP_NORESERVE)
    except OSError as error:
        pytest.skip(f"no hugetlb: {error}")
    line, flags = _own_flags(_address(memory))
    memory.close()
    assert line.page_size == size
    assert "ht" in flags


def test_tasks_without_memory(zombie: int) -> None:
    assert read_maps(zombie) == []
    assert read_smaps_flags(zombie) == []


def test_many_vmas_are_read_whole() -> None:
    memory = _anonymous(2000)
    address = _address(memory)
    for page in range(0, 2000, 2):
        assert _libc.mprotect(ctypes.c_void_p(address + page * _PAGE), ctypes.c_size_t(_PAGE), 0) == 0
    inside = [line for line in read_maps(os.getpid()) if address <= line.start < address + len(memory)]
    with_flags = [line for line, _ in read_smaps_flags(os.getpid()) if address <= line.start < address + len(memory)]
    assert [line.start for line in inside] == [address + page * _PAGE for page in range(2000)]
    assert [line._replace(page_size=0) for line in with_flags] == inside
    memory.close()


def test_parse_maps_of_literal_lines() -> None:
    raw = (
        b"00400000-00401000 r-xp 00000000 103:02 9221120237041090560                 /a b\\012c (deleted)\n"
        b"7ffff7fc1000-7ffff7fc3000 ---s fffffffffffff000 00:01 1024                       /SYSV0000abcd (deleted)\n"
        b"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n"
    )
    assert parse_maps(raw) == [
        (0x400000, 0x401000, 5, False, 0, (0x103, 2), 9221120237041090560, b"/a b\nc", True, 0, 0),
        (0x7FFFF7FC1000, 0x7FFFF7FC3000, 0, True, 2**64 - 4096, (0, 1), 1024, b"/SYSV0000abcd", True, 0, 0),
        (0xFFFFFFFFFF600000, 0xFFFFFFFFFF601000, 4, False, 0, (0, 0), 0, b"[vsyscall]", False, 0, 0),
    ]


@pytest.mark.parametrize("raw", [b"nonsense\n", b"00400000-00401000 r-xp 00000000 fe:00\n"])
def test_what_is_not_understood_is_not_left_out(raw: bytes) -> None:
    with pytest.raises(ValueError, match="maps"):
        parse_maps(raw)
    record = b"Size: 4 kB\nKernelPageSize:        4 kB\nVmFlags: rd mr \n"
    with pytest.raises(ValueError, match="zip"):
        parse_smaps_flags(raw + record)


def test_a_record_without_a_page_size_is_refused() -> None:
    with pytest.raises(ValueError, match="KernelPageSize"):
        parse_smaps_flags(b"00400000-00401000 r-xp 00000000 fe:00 1 /a\nSize: 4 kB\nVmFlags: rd \n")
