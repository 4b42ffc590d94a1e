"""Filling memory of another process from outside."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.ids import HostPid
from orchestrator.kinds.memory.record import PageRun
from orchestrator.restore.helper import halves, write_pages

PAGE = mmap.PAGESIZE
SIZE = 5 << 20


@pytest.fixture
def image() -> Iterator[int]:
    fd = os.memfd_create("image")
    os.write(fd, bytes(PAGE) + os.urandom(SIZE))
    yield fd
    os.close(fd)


@pytest.fixture
def shared() -> Iterator[tuple[mmap.mmap, int]]:
    """Memory that the child has, too, and its address."""
    memory = mmap.mmap(-1, SIZE)
    anchor = ctypes.c_char.from_buffer(memory)
    yield memory, ctypes.addressof(anchor)
    del anchor
    memory.close()


@pytest.fixture
def child(shared: tuple[mmap.mmap, int]) -> Iterator[HostPid]:
    assert shared
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    yield HostPid(pid)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_pages_of_the_image_are_where_they_belong(image: int, shared: tuple[mmap.mmap, int], child: HostPid) -> None:
    memory, at = shared
    runs = [PageRun(at + PAGE, 3 << 20, 2 * PAGE), PageRun(at + (4 << 20), PAGE, 0)]
    assert write_pages(child, image, PAGE, runs) == []
    data = os.pread(image, SIZE, PAGE)
    expected = bytearray(SIZE)
    expected[PAGE : PAGE + (3 << 20)] = data[2 * PAGE : 2 * PAGE + (3 << 20)]
    expected[4 << 20 : (4 << 20) + PAGE] = data[:PAGE]
    assert memory[:] == bytes(expected)


def test_what_cannot_be_written_is_told(image: int, shared: tuple[mmap.mmap, int], child: HostPid) -> None:
    _, at = shared
    runs = [PageRun(at, PAGE, 0), PageRun(0x1000, PAGE, 0), PageRun(at + PAGE, 3 << 20, 0)]
    left = write_pages(child, image, PAGE, runs)
    assert left[0] == runs[1]
    assert sum(run.length for run in left) == PAGE + (3 << 20)


@given(st.lists(st.integers(1, 9), max_size=8))
def test_halves_cover_everything_once(lengths: list[int]) -> None:
    runs = []
    at = 0
    for length in lengths:
        runs.append(PageRun(at * 2 * PAGE, length * PAGE, at * PAGE))
        at += length
    first, second = halves(runs)
    pages = [(run.start + i, run.at + i) for run in runs for i in range(0, run.length, PAGE)]
    assert [(run.start + i, run.at + i) for run in [*first, *second] for i in range(0, run.length, PAGE)] == pages
    assert 0 <= sum(run.length for run in second) - sum(run.length for run in first) <= PAGE
