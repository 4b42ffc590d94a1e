from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.linux import pagemap
from orchestrator.linux.call import machine, syscall
from orchestrator.linux.pagemap import (
    PAGE_IS_FILE,
    PAGE_IS_HUGE,
    PAGE_IS_PFNZERO,
    PAGE_IS_PRESENT,
    PAGE_IS_SWAPPED,
    PAGE_IS_WRITTEN,
    PAGE_SIZE,
    PFN_MASK,
    PM_FILE,
    PM_MMAP_EXCLUSIVE,
    PM_PRESENT,
    PM_SCAN_CHECK_WPASYNC,
    PM_SCAN_WP_MATCHING,
    PM_SWAP,
    read_entries,
    scan,
)
from orchestrator.linux.syscalls import numbers

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

_ALL = PAGE_IS_FILE | PAGE_IS_PRESENT | PAGE_IS_SWAPPED | PAGE_IS_PFNZERO | PAGE_IS_HUGE


@pytest.fixture
def own_pagemap() -> Iterator[int]:
    fd = os.open("/proc/self/pagemap", os.O_RDONLY)
    yield fd
    os.close(fd)


def _address(memory: mmap.mmap) -> int:
    anchor = ctypes.c_char.from_buffer(memory)
    address = ctypes.addressof(anchor)
    del anchor
    return address


def _anonymous(pages: int) -> mmap.mmap:
    memory = mmap.mmap(-1, pages * PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory


def _pages(regions: list[tuple[int, int, int]], start: int) -> list[tuple[int, int, int]]:
    return [((a - start) // PAGE_SIZE, (b - start) // PAGE_SIZE, categories) for a, b, categories in regions]


def test_anonymous_memory(own_pagemap: int) -> None:
    memory = _anonymous(16)
    start = _address(memory)
    for page in (0, 1, 2, 15):
        memory[page * PAGE_SIZE] = 1
    for page in (5, 6):
        assert memory[page * PAGE_SIZE] == 0
    end = start + len(memory)
    found = scan(own_pagemap, start, end, category_mask=PAGE_IS_PRESENT, return_mask=_ALL)
    zero = PAGE_IS_PRESENT | PAGE_IS_PFNZERO
    assert _pages(found, start) == [(0, 3, PAGE_IS_PRESENT), (5, 7, zero), (15, 16, PAGE_IS_PRESENT)]
    # What a checkpoint stores: present or swapped, neither the zero page nor a file's.
    found = scan(
        own_pagemap,
        start,
        end,
        category_inverted=PAGE_IS_PFNZERO | PAGE_IS_FILE,
        category_mask=PAGE_IS_PFNZERO | PAGE_IS_FILE,
        category_anyof_mask=PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
        return_mask=PAGE_IS_PRESENT,
    )
    assert _pages(found, start) == [(0, 3, PAGE_IS_PRESENT), (15, 16, PAGE_IS_PRESENT)]
    entries = read_entries(own_pagemap, start, end)
    memory.close()
    assert len(entries) == 16
    assert [page for page, entry in enumerate(entries) if entry & PM_PRESENT] == [0, 1, 2, 5, 6, 15]
    assert not any(entry & (PM_SWAP | PM_FILE) for entry in entries)
    assert all(entries[page] & PM_MMAP_EXCLUSIVE for page in (0, 1, 2, 15))


@root_only
def test_frames_tell_what_is_shared(own_pagemap: int) -> None:
    memory = _anonymous(4)
    start = _address(memory)
    memory[:] = b"x" * len(memory)
    ready, done = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        memory[0] = 1
        os.write(ready[1], b".")
        os.read(done[0], 1)
        os._exit(0)
    try:
        os.read(ready[0], 1)
        theirs_fd = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY)
        theirs = read_entries(theirs_fd, start, start + len(memory))
        os.close(theirs_fd)
        ours = read_entries(own_pagemap, start, start + len(memory))
    finally:
        os.write(done[1], b".")
        os.waitpid(pid, 0)
        for fd in (*ready, *done):
            os.close(fd)
        memory.close()
    same = [a & PFN_MASK == b & PFN_MASK for a, b in zip(ours, theirs, strict=True)]
    assert same == [False, True, True, True]
    assert all(entry & PFN_MASK for entry in ours)
    assert not ours[1] & PM_MMAP_EXCLUSIVE


def test_private_and_shared_file_memory(own_pagemap: int, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 4 * PAGE_SIZE)
    with path.open("r+b") as file:
        private = mmap.mmap(file.fileno(), 4 * PAGE_SIZE, flags=mmap.MAP_PRIVATE)
        shared = mmap.mmap(file.fileno(), 4 * PAGE_SIZE)
    for memory in (private, shared):
        for page in range(3):
            assert memory[page * PAGE_SIZE] == ord("x")
        memory[PAGE_SIZE] = ord("y")
    clean = PAGE_IS_PRESENT | PAGE_IS_FILE

    def categories(memory: mmap.mmap) -> dict[int, int]:
        start = _address(memory)
        found = scan(
            own_pagemap, start, start + len(memory), category_mask=PAGE_IS_PRESENT, return_mask=clean | PAGE_IS_PFNZERO
        )
        return {page: kinds for a, b, kinds in _pages(found, start) for page in range(a, b)}

    # The kernel may map more than was touched; only the touched pages are certain.
    of_private, of_shared = categories(private), categories(shared)
    entries = read_entries(own_pagemap, _address(private), _address(private) + len(private))
    private.close()
    shared.close()
    assert [of_private[page] for page in range(3)] == [clean, PAGE_IS_PRESENT, clean]
    assert [of_shared[page] for page in range(3)] == [clean, clean, clean]
    assert [bool(entry & PM_FILE) for entry in entries[:3]] == [True, False, True]


def test_more_regions_than_one_buffer_holds(own_pagemap: int) -> None:
    pages = 2 * pagemap._VEC_LEN + 2000
    memory = _anonymous(pages)
    start = _address(memory)
    for page in range(0, pages, 2):
        memory[page * PAGE_SIZE]  # Reading maps the zero page: no memory is used.
    found = scan(own_pagemap, start, start + len(memory), category_mask=PAGE_IS_PFNZERO, return_mask=PAGE_IS_PFNZERO)
    memory.close()
    assert _pages(found, start) == [(page, page + 1, PAGE_IS_PFNZERO) for page in range(0, pages, 2)]


def test_a_long_run_is_one_region(own_pagemap: int) -> None:
    memory = _anonymous(5000)
    start = _address(memory)
    for page in range(3, 4999):
        memory[page * PAGE_SIZE]
    found = scan(own_pagemap, start, start + len(memory), category_mask=PAGE_IS_PRESENT, return_mask=PAGE_IS_PRESENT)
    memory.close()
    assert _pages(found, start) == [(3, 4999, PAGE_IS_PRESENT)]


def test_max_pages(own_pagemap: int) -> None:
    memory = _anonymous(64)
    start = _address(memory)
    for page in range(0, 64, 2):
        memory[page * PAGE_SIZE] = 1
    end = start + len(memory)
    for bound in (1, 5, 32, 100):
        found = scan(
            own_pagemap, start, end, category_mask=PAGE_IS_PRESENT, return_mask=PAGE_IS_PRESENT, max_pages=bound
        )
        assert [page for page, _, _ in _pages(found, start)] == list(range(0, 64, 2))[:bound]
    memory.close()


def test_nothing_found_and_nothing_mapped(own_pagemap: int) -> None:
    memory = _anonymous(8)
    start = _address(memory)
    end = start + len(memory)
    assert scan(own_pagemap, start, end, category_mask=PAGE_IS_PRESENT, return_mask=PAGE_IS_PRESENT) == []
    memory.close()
    assert scan(own_pagemap, start, end, category_mask=PAGE_IS_PRESENT, return_mask=PAGE_IS_PRESENT) == []
    assert scan(own_pagemap, start, start, category_mask=PAGE_IS_PRESENT, return_mask=PAGE_IS_PRESENT) == []


def test_the_whole_address_space(own_pagemap: int) -> None:
    memory = _anonymous(1)
    memory[0] = 1
    start = _address(memory)
    found = scan(own_pagemap, 0, (1 << 47) - PAGE_SIZE, category_mask=PAGE_IS_PRESENT, return_mask=PAGE_IS_PRESENT)
    memory.close()
    assert any(first <= start < last for first, last, _ in found)
    assert found == sorted(found)


def test_a_refused_scan_says_what_was_asked(own_pagemap: int) -> None:
    with pytest.raises(OSError, match="Invalid argument") as caught:
        scan(own_pagemap, 1, PAGE_SIZE, category_mask=PAGE_IS_PRESENT, return_mask=PAGE_IS_PRESENT)
    assert "PAGEMAP_SCAN" in caught.value.__notes__[0]


def test_entries_beyond_the_address_space(own_pagemap: int) -> None:
    top = (1 << 47) - PAGE_SIZE
    assert len(read_entries(own_pagemap, top - 4 * PAGE_SIZE, top)) == 4
    assert len(read_entries(own_pagemap, 1 << 63, (1 << 63) + PAGE_SIZE)) == 0


_UFFD_API = struct.Struct("=QQQ")
_UFFD_REGISTER = struct.Struct("=QQQQ")
_UFFD_FEATURE_WP_UNPOPULATED = 1 << 13
_UFFD_FEATURE_WP_ASYNC = 1 << 15


@pytest.fixture
def uffd() -> Iterator[int]:
    try:
        fd = syscall(numbers(machine())["userfaultfd"], os.O_CLOEXEC | 1)  # UFFD_USER_MODE_ONLY
    except OSError as error:
        pytest.skip(f"userfaultfd: {error}")
    features = _UFFD_FEATURE_WP_UNPOPULATED | _UFFD_FEATURE_WP_ASYNC
    try:
        fcntl.ioctl(fd, 0xC018AA3F, _UFFD_API.pack(0xAA, features, 0))
        yield fd
    finally:
        os.close(fd)


@pytest.mark.parametrize("dirty_pages", [3, 1000, pagemap._VEC_LEN, pagemap._VEC_LEN + 600])
def test_written_pages_are_found_once_and_armed_again(own_pagemap: int, uffd: int, dirty_pages: int) -> None:
    memory = _anonymous(2 * dirty_pages)
    start = _address(memory)
    end = start + len(memory)
    fcntl.ioctl(uffd, 0xC020AA00, _UFFD_REGISTER.pack(start, len(memory), 2, 0))

    def written() -> list[tuple[int, int, int]]:
        return scan(
            own_pagemap,
            start,
            end,
            category_mask=PAGE_IS_WRITTEN,
            return_mask=PAGE_IS_WRITTEN,
            flags=PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
        )

    written()  # Arms: what was never protected counts as written.
    assert written() == []
    for page in range(0, 2 * dirty_pages, 2):
        memory[page * PAGE_SIZE] = 1
    found = written()
    again = written()
    memory[PAGE_SIZE] = 1
    later = written()
    memory.close()
    assert _pages(found, start) == [(page, page + 1, PAGE_IS_WRITTEN) for page in range(0, 2 * dirty_pages, 2)]
    assert again == []
    assert _pages(later, start) == [(1, 2, PAGE_IS_WRITTEN)]


def test_arming_memory_that_nobody_tracks_is_refused(own_pagemap: int) -> None:
    memory = _anonymous(1)
    start = _address(memory)
    memory[0] = 1
    with pytest.raises(PermissionError):
        scan(
            own_pagemap,
            start,
            start + PAGE_SIZE,
            category_mask=PAGE_IS_WRITTEN,
            return_mask=PAGE_IS_WRITTEN,
            flags=PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
        )
    memory.close()
