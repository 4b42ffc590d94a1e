"""Files that are no image of this machine: one clear error each, naming the file."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_samples import MACHINE, METADATA, PAGE_SIZE, Sample, read_everything, write_sample

from orchestrator.errors import ImageArchitecture, ImageError, ImageMissing, ImageTruncated, NotAnImage, NotPermitted
from orchestrator.image.reader import ImageFile

pytest_plugins = ["image_fixtures"]


def test_missing(target: Path) -> None:
    with pytest.raises(ImageMissing, match=str(target)):
        ImageFile.open(target)


def test_missing_directory(target: Path) -> None:
    with pytest.raises(ImageMissing, match="No such file"):
        ImageFile.open(target / "below")


def test_below_a_file(sample: Sample) -> None:
    with pytest.raises(ImageMissing, match="Not a directory"):
        ImageFile.open(sample.path / "below")


@pytest.mark.parametrize("name", ["a\0b", "a" * 300])
def test_a_name_that_no_file_has(name: str) -> None:
    with pytest.raises(ImageMissing):
        ImageFile.open(name)


def test_empty(target: Path) -> None:
    target.touch()
    with pytest.raises(NotAnImage, match="it is empty"):
        ImageFile.open(target)


@pytest.mark.parametrize(
    "content", [b"x", b"ORCHCKPS", b"#!/bin/sh\n" * 1000, b"\x7fELF" + bytes(9000), bytes(100_000)]
)
def test_something_else(target: Path, content: bytes) -> None:
    target.write_bytes(content)
    with pytest.raises(NotAnImage, match=str(target)):
        ImageFile.open(target)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=9000), st.booleans())
def test_arbitrary_bytes(content: bytes, magic: bool) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory, "image")
        path.write_bytes((b"ORCHCKPT" if magic else b"") + content)
        with pytest.raises(ImageError):
            ImageFile.open(path)


def test_directory(tmp_path: Path) -> None:
    with pytest.raises(NotAnImage, match="it is a directory"):
        ImageFile.open(tmp_path)


def test_fifo_without_a_writer_does_not_hang(target: Path) -> None:
    os.mkfifo(target)
    with pytest.raises(NotAnImage, match="it is a FIFO"):
        ImageFile.open(target)


def test_socket(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(target.parent)  # the whole path may be longer than an address
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(target.name)
        with pytest.raises(NotAnImage, match="socket"):
            ImageFile.open(target)


def test_device() -> None:
    with pytest.raises(NotAnImage, match="it is a character device"):
        ImageFile.open("/dev/zero")


def test_symbolic_link_is_followed(sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(sample.path)
    assert read_everything(tmp_path / "latest") == (sample.metadata, sample.pages)


def test_symbolic_link_to_itself(target: Path) -> None:
    target.symlink_to(target)
    with pytest.raises(ImageMissing):
        ImageFile.open(target)


def test_another_architecture(target: Path) -> None:
    write_sample(target, architecture="s390x")
    with pytest.raises(ImageArchitecture, match=f"was written on s390x, this machine is {MACHINE}"):
        ImageFile.open(target)


def test_another_page_size(target: Path) -> None:
    other = PAGE_SIZE * 4
    write_sample(target, page_size=other, pages=bytes(other))
    with pytest.raises(ImageArchitecture, match=f"with pages of {other} bytes"):
        ImageFile.open(target)


def test_a_foreign_image_can_be_shown(target: Path) -> None:
    other = PAGE_SIZE * 4
    write_sample(target, architecture="s390x", page_size=other, pages=bytes(other))
    with ImageFile.open(target, foreign=True) as image:
        assert image.metadata == METADATA
        assert image.verify_pages() == other


def test_a_foreign_image_that_was_cut_short(target: Path) -> None:
    write_sample(target, architecture="s390x")
    os.truncate(target, target.stat().st_size - 1)
    with pytest.raises(ImageTruncated):
        ImageFile.open(target, foreign=True)


@contextmanager
def _as_nobody() -> Iterator[None]:
    if os.getuid() != 0:
        pytest.skip("needs root")
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_an_image_of_somebody_else(sample: Sample) -> None:
    with _as_nobody(), pytest.raises(NotPermitted, match="may not read image"):
        ImageFile.open(sample.path)


@pytest.mark.parametrize("kind", ["fifo", "empty", "truncated", "foreign"])
def test_a_refused_file_is_closed(target: Path, kind: str) -> None:
    match kind:
        case "fifo":
            os.mkfifo(target)
        case "empty":
            target.touch()
        case "truncated":
            write_sample(target)
            os.truncate(target, 5000)
        case _:
            write_sample(target, architecture="s390x")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(ImageError):
        ImageFile.open(target)
    assert os.listdir("/proc/self/fd") == before
