from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_samples import MACHINE, PAGE_SIZE, PAGES, Sample, read_everything, write_sample

from orchestrator.image.header import Header
from orchestrator.image.reader import ImageFile
from orchestrator.image.verify import verify
from orchestrator.image.writer import ImageWriter

pytest_plugins = ["image_fixtures"]


@pytest.mark.parametrize("checksums", [True, False])
@pytest.mark.parametrize("page_count", [0, 1, 5])
@pytest.mark.parametrize("metadata_length", [0, 1, PAGE_SIZE - 4096 % PAGE_SIZE, PAGE_SIZE, PAGE_SIZE + 1])
def test_what_was_written_is_read(target: Path, metadata_length: int, page_count: int, checksums: bool) -> None:
    metadata, pages = os.urandom(metadata_length), PAGES[: page_count * PAGE_SIZE]
    sample = write_sample(target, metadata=metadata, pages=pages, checksums=checksums)
    with ImageFile.open(target) as image:
        assert image.metadata == metadata
        assert os.pread(image.fd, len(pages) + 1, image.pages_offset)[: len(pages)] == pages
        assert image.pages_length == len(pages)
        assert image.pages_offset % PAGE_SIZE == 0
        assert image.has_checksums is checksums
        assert image.header.image_id == sample.image_id
        assert image.header.parent_id is None
        found = verify(image)
    assert (found.metadata_bytes, found.page_bytes, found.has_checksums) == (
        metadata_length,
        len(pages) if checksums else 0,
        checksums,
    )


@settings(max_examples=40, deadline=None)
@given(
    metadata=st.binary(max_size=10_000),
    extents=st.permutations(range(6)),
    checksums=st.booleans(),
    parent=st.none() | st.uuids(version=4),
)
def test_pages_come_in_any_order(metadata: bytes, extents: list[int], checksums: bool, parent: UUID | None) -> None:
    pages = [bytes([65 + number]) * PAGE_SIZE for number in range(6)]
    with TemporaryDirectory() as directory:
        path = Path(directory, "image")
        with ImageWriter(path, architecture=MACHINE, page_size=PAGE_SIZE, parent=parent) as writer:
            start = writer.begin(metadata, len(pages) * PAGE_SIZE)
            for number in extents:
                os.pwrite(writer.fd, pages[number], start + number * PAGE_SIZE)
            writer.commit(durable=False, checksums=checksums)
        assert read_everything(path) == (metadata, b"".join(pages))
        with ImageFile.open(path) as image:
            assert image.header.parent_id == parent


def test_another_process_writes_pages_through_the_descriptor(target: Path) -> None:
    program = "import os, sys; os.pwrite(int(sys.argv[1]), b'far' * 100, int(sys.argv[2]))"
    with ImageWriter(target, architecture=MACHINE, page_size=PAGE_SIZE) as writer:
        start = writer.begin(b"", 2 * PAGE_SIZE)
        arguments = [sys.executable, "-c", program, str(writer.fd), str(start + PAGE_SIZE)]
        subprocess.run(arguments, pass_fds=[writer.fd], check=True, timeout=30)
        writer.commit(checksums=True)
    _, pages = read_everything(target)
    assert pages == bytes(PAGE_SIZE) + (b"far" * 100).ljust(PAGE_SIZE, b"\0")


def test_header_says_when_where_and_of_what(target: Path) -> None:
    parent = uuid4()
    before = time.time_ns()
    write_sample(target, parent=parent)
    after = time.time_ns()
    with ImageFile.open(target) as image:
        assert image.header.architecture == MACHINE
        assert image.header.page_size == PAGE_SIZE
        assert image.header.parent_id == parent
        assert before <= image.header.created_unix_ns <= after


def test_two_images_have_different_ids(tmp_path: Path) -> None:
    assert write_sample(tmp_path / "a").image_id != write_sample(tmp_path / "b").image_id


headers = st.builds(
    Header,
    architecture=st.text("abcdefghijklmnopqrstuvwxyz0123456789_", min_size=1, max_size=16),
    page_size=st.sampled_from([4096, 16384, 65536]),
    image_id=st.uuids(),
    parent_id=st.none() | st.uuids(),
    created_unix_ns=st.integers(0, (1 << 64) - 1),
    metadata_length=st.integers(0, 100_000),
    metadata_checksum=st.binary(min_size=16, max_size=16),
    pages_offset=st.integers(2, 1 << 40).map(lambda number: number * 65536),
    pages_length=st.integers(0, 1 << 32).map(lambda number: number * 65536),
)


@given(headers)
def test_header_survives_encoding(header: Header) -> None:
    page = header.encode()
    assert len(page) == 4096
    assert Header.decode(page) == header


@pytest.mark.parametrize("architecture", ["", "a" * 17, "ü"])
def test_header_refuses_an_architecture_it_cannot_hold(target: Path, architecture: str) -> None:
    with ImageWriter(target, architecture=architecture, page_size=PAGE_SIZE) as writer, pytest.raises(ValueError):  # noqa: PT011 two kinds
        writer.begin(b"", 0)


def test_verification_tells_how_far_it_is(target: Path) -> None:
    write_sample(target, pages=bytes((5 << 20) // 2))
    steps: list[int] = []
    with ImageFile.open(target) as image:
        verify(image, steps.append)
    assert steps == [1 << 20, 2 << 20, (5 << 20) // 2]


def test_metadata_is_read_once(sample: Sample) -> None:
    with ImageFile.open(sample.path) as image:
        assert image.metadata is image.metadata


def test_descriptor_reads_and_blocks(sample: Sample) -> None:
    with ImageFile.open(sample.path) as image:
        flags = fcntl.fcntl(image.fd, fcntl.F_GETFL)
    assert flags & os.O_ACCMODE == os.O_RDONLY
    assert not flags & os.O_NONBLOCK


def test_closing_twice_closes_once(sample: Sample) -> None:
    image = ImageFile.open(sample.path)
    fd = image.fd
    image.close()
    image.close()
    assert image.fd == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_descriptors_are_closed_on_exec(sample: Sample, tmp_path: Path) -> None:
    with (
        ImageFile.open(sample.path) as image,
        ImageWriter(tmp_path / "new", architecture=MACHINE, page_size=PAGE_SIZE) as writer,
    ):
        assert not os.get_inheritable(image.fd)
        assert not os.get_inheritable(writer.fd)
