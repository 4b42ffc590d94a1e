from __future__ import annotations

import os
from pathlib import Path

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import ImageCorrupt
from orchestrator.image.checksums import TABLE_MAGIC, block_checksums, checksum_extents, parse_table, table_bytes
from orchestrator.image.extents import PageLayout

pytest_plugins = ["image_fixtures"]


@given(st.lists(st.integers(0, 1 << 40), max_size=30), st.sampled_from([4096, 65536]))
def test_extents_are_aligned_and_do_not_overlap(sizes: list[int], page_size: int) -> None:
    layout = PageLayout(page_size)
    end = 0
    for size in sizes:
        offset = layout.place(size)
        assert offset % page_size == 0
        assert offset >= end
        assert offset - end < page_size
        end = offset + size
    assert layout.length % page_size == 0
    assert end <= layout.length < end + page_size


def test_an_empty_extent_takes_no_room() -> None:
    layout = PageLayout(4096)
    assert (layout.place(1), layout.place(0), layout.place(4097), layout.length) == (0, 4096, 4096, 12288)


@pytest.mark.parametrize("page_size", [0, -4096, 4095])
def test_page_size_is_a_power_of_two(page_size: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        PageLayout(page_size)


def test_no_negative_extents() -> None:
    with pytest.raises(ValueError, match="-1 bytes"):
        PageLayout(4096).place(-1)


@pytest.mark.parametrize("length", [0, 1, 99, 100, 101, 250])
def test_each_block_has_its_own_checksum(target: Path, length: int) -> None:
    content = os.urandom(400)
    target.write_bytes(content)
    with open(target, "rb") as file:
        table = checksum_extents(file.fileno(), 50, length, block=100)
    assert len(table) == table_bytes(length, 100)
    block, sums = parse_table(table, length, name="x")
    expected = [xxhash.xxh3_64_intdigest(content[50 + n : 50 + min(n + 100, length)]) for n in range(0, length, 100)]
    assert (block, list(sums)) == (100, expected)


def test_a_file_that_ends_too_early(target: Path) -> None:
    target.write_bytes(bytes(150))
    with open(target, "rb") as file, pytest.raises(EOFError):
        list(block_checksums(file.fileno(), 0, 151, 100))


@pytest.mark.parametrize(
    "table",
    [
        b"",
        TABLE_MAGIC,
        b"x" * 40,
        TABLE_MAGIC + (0).to_bytes(8, "little") + (100).to_bytes(8, "little") + bytes(16),
        TABLE_MAGIC + (1 << 62).to_bytes(8, "little") + (100).to_bytes(8, "little") + bytes(16),
        TABLE_MAGIC + (100).to_bytes(8, "little") + (101).to_bytes(8, "little") + bytes(16),
        TABLE_MAGIC + (100).to_bytes(8, "little") + (100).to_bytes(8, "little") + bytes(8),
        TABLE_MAGIC + (100).to_bytes(8, "little") + (100).to_bytes(8, "little") + b"\1" + bytes(15),
    ],
)
def test_a_table_that_is_none(table: bytes) -> None:
    with pytest.raises(ImageCorrupt, match="checksum table"):
        parse_table(table, 100, name="x")
