"""One flipped bit, a cut, or numbers that lie: each is found, or is in bytes that nobody reads."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_samples import (
    METADATA,
    PAGE_SIZE,
    PAGES,
    Sample,
    flip_bit,
    forge_header,
    forge_trailer,
    overwrite,
    read_everything,
    write_sample,
)
from msgspec.structs import replace

from orchestrator.errors import ImageCorrupt, ImageError, ImageTruncated, ImageVersion, NotAnImage
from orchestrator.image.header import Header
from orchestrator.image.reader import ImageFile
from orchestrator.image.verify import verify

pytest_plugins = ["image_fixtures"]

HEADER_FIELDS = {
    "format version": (8, 4),
    "header size": (12, 4),
    "flags": (16, 8),
    "architecture": (24, 16),
    "page size": (40, 4),
    "reserved": (44, 4),
    "image id": (48, 16),
    "parent id": (64, 16),
    "created": (80, 8),
    "metadata offset": (88, 8),
    "metadata length": (96, 8),
    "metadata checksum": (104, 16),
    "pages offset": (120, 8),
    "pages length": (128, 8),
    "reserved to the end": (136, 3944),
    "checksum": (4080, 16),
}
TRAILER_FIELDS = {
    "total length": (8, 8),
    "image id": (16, 16),
    "header checksum": (32, 16),
    "table offset": (48, 8),
    "table length": (56, 8),
    "table checksum": (64, 16),
    "reserved": (80, 4000),
    "checksum": (4080, 16),
}


PAGES_OFFSET = -(-(4096 + len(METADATA)) // PAGE_SIZE) * PAGE_SIZE
PAGES_END = PAGES_OFFSET + len(PAGES)
TABLE_BYTES = 32 + 8
TOTAL = PAGES_END + 4096 + 4096
PADDING = {*range(4096 + len(METADATA), PAGES_OFFSET), *range(PAGES_END + TABLE_BYTES, PAGES_END + 4096)}


def test_the_sample_is_laid_out_as_these_tests_think(sample: Sample) -> None:
    header = sample.header()
    assert (header.pages_offset, header.pages_end) == (PAGES_OFFSET, PAGES_END)
    assert sample.path.stat().st_size == TOTAL


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("offset", "size"), HEADER_FIELDS.values(), ids=HEADER_FIELDS)
def test_flipped_bit_in_the_header(sample: Sample, offset: int, size: int, last: bool) -> None:
    flip_bit(sample.path, offset + size - 1 if last else offset, 7 if last else 0)
    with pytest.raises(ImageCorrupt, match="the header is damaged") as raised:
        ImageFile.open(sample.path)
    assert str(sample.path) in str(raised.value)


@pytest.mark.parametrize("offset", range(8))
def test_flipped_bit_in_the_magic(sample: Sample, offset: int) -> None:
    flip_bit(sample.path, offset)
    with pytest.raises(NotAnImage, match="is not an orch image"):
        ImageFile.open(sample.path)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("offset", "size"), TRAILER_FIELDS.values(), ids=TRAILER_FIELDS)
def test_flipped_bit_in_the_trailer(sample: Sample, offset: int, size: int, last: bool) -> None:
    flip_bit(sample.path, TOTAL - 4096 + (offset + size - 1 if last else offset), 7 if last else 0)
    with pytest.raises(ImageCorrupt, match="the trailer is damaged"):
        ImageFile.open(sample.path)


def test_flipped_bit_in_the_trailer_magic(sample: Sample) -> None:
    flip_bit(sample.path, TOTAL - 4096)
    with pytest.raises(ImageTruncated, match="does not end with a trailer"):
        ImageFile.open(sample.path)


@pytest.mark.parametrize("offset", [4096, 4096 + len(METADATA) - 1])
def test_flipped_bit_in_the_metadata(sample: Sample, offset: int) -> None:
    flip_bit(sample.path, offset)
    with ImageFile.open(sample.path) as image, pytest.raises(ImageCorrupt, match="the metadata is damaged"):
        _ = image.metadata


def test_flipped_bit_in_the_pages_is_named_by_offset(target: Path) -> None:
    write_sample(target, pages=bytes(3 << 20))
    flip_bit(target, PAGES_OFFSET + (1 << 20) + 5)
    with ImageFile.open(target) as image:
        assert image.metadata == METADATA
        with pytest.raises(ImageCorrupt, match=rf"1048576 bytes at offset {PAGES_OFFSET + (1 << 20)} "):
            image.verify_pages()


def test_flipped_bit_in_the_checksum_table(sample: Sample) -> None:
    flip_bit(sample.path, PAGES_END + 32)
    with ImageFile.open(sample.path) as image, pytest.raises(ImageCorrupt, match="the checksum table is damaged"):
        verify(image)


def test_without_checksums_damage_to_pages_is_not_found_and_nothing_claims_it_was(target: Path) -> None:
    write_sample(target, checksums=False)
    flip_bit(target, PAGES_OFFSET)
    with ImageFile.open(target) as image:
        found = verify(image)
    assert (found.page_bytes, found.has_checksums) == (0, False)


@settings(max_examples=300, deadline=None)
@given(offset=st.integers(0, TOTAL - 1), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found_or_harmless(offset: int, bit: int) -> None:
    with TemporaryDirectory() as directory:
        path = write_sample(Path(directory, "image")).path
        flip_bit(path, offset, bit)
        if offset in PADDING:
            assert read_everything(path) == (METADATA, PAGES)
        else:
            with pytest.raises(ImageError):
                read_everything(path)


BOUNDARIES = (8, 4080, 4096, 4096 + len(METADATA), PAGES_OFFSET, PAGES_OFFSET + PAGE_SIZE, PAGES_END, PAGES_END + 32)
CUTS = sorted({1, *(n + d for n in (*BOUNDARIES, TOTAL - 4096) for d in (-1, 0, 1)), TOTAL - 1})


@pytest.mark.parametrize(
    ("checksums", "length"), [(has, cut) for has in (True, False) for cut in CUTS if has or cut < TOTAL - 4096]
)
def test_an_image_cut_short(target: Path, length: int, checksums: bool) -> None:
    write_sample(target, checksums=checksums)
    assert length < target.stat().st_size
    with open(target, "r+b") as file:
        file.truncate(length)
    with pytest.raises(ImageTruncated) as raised:
        ImageFile.open(target)
    assert str(target) in str(raised.value)


@settings(max_examples=100, deadline=None)
@given(length=st.integers(1, TOTAL - 1), zeros=st.booleans())
def test_an_image_cut_anywhere(length: int, zeros: bool) -> None:
    with TemporaryDirectory() as directory:
        path = write_sample(Path(directory, "image")).path
        with open(path, "r+b") as file:
            file.truncate(length)
            if zeros and length >= 4096:  # what a crash leaves of a file that had its full length reserved
                file.truncate(TOTAL)
        if zeros and length >= TOTAL - 16:
            return  # so few bytes at the end may have been zeros
        with pytest.raises((ImageTruncated, ImageCorrupt)):
            read_everything(path)


def test_a_trailer_of_another_image_in_the_page_data_does_not_pass(target: Path, tmp_path: Path) -> None:
    inner = write_sample(tmp_path / "inner").path.read_bytes()
    write_sample(target, pages=inner.ljust(-(-len(inner) // PAGE_SIZE) * PAGE_SIZE, b"\0"))
    with open(target, "r+b") as file:
        file.truncate(PAGES_OFFSET + len(inner))
    with pytest.raises(ImageTruncated):
        ImageFile.open(target)


def test_the_trailer_of_the_image_that_was_here_before_does_not_pass(target: Path, tmp_path: Path) -> None:
    old = write_sample(tmp_path / "old").path.read_bytes()
    write_sample(target)
    overwrite(target, TOTAL - 4096, old[-4096:])
    with pytest.raises(ImageCorrupt, match="belongs to another image"):
        ImageFile.open(target)


@pytest.mark.parametrize("count", [1, 4096])
def test_something_appended_is_noticed(sample: Sample, count: int) -> None:
    overwrite(sample.path, TOTAL, bytes(count))
    with pytest.raises(ImageTruncated, match="does not end with a trailer"):
        ImageFile.open(sample.path)


def test_a_file_that_shrinks_while_it_is_open(sample: Sample) -> None:
    with ImageFile.open(sample.path) as image:
        with open(sample.path, "r+b") as file:
            file.truncate(5000)
        with pytest.raises(ImageTruncated, match="while it was read"):
            _ = image.metadata
        with pytest.raises(ImageTruncated, match="while it was read"):
            image.verify_pages()


MAXIMUM = b"\xff" * 8
FORGED = {
    "header size": (12, (8192).to_bytes(4, "little")),
    "architecture empty": (24, bytes(16)),
    "architecture not ASCII": (24, b"\xff" * 16),
    "architecture not printable": (24, b"x\n" + bytes(14)),
    "architecture with a NUL inside": (24, b"x\0y" + bytes(13)),
    "page size 0": (40, bytes(4)),
    "page size 4097": (40, (4097).to_bytes(4, "little")),
    "page size 2 GiB": (40, (1 << 31).to_bytes(4, "little")),
    "reserved": (44, b"\1"),
    "reserved to the end": (4079, b"\1"),
    "metadata offset 0": (88, bytes(8)),
    "metadata offset beyond": (88, MAXIMUM),
    "metadata length beyond": (96, MAXIMUM),
    "metadata length over the limit": (96, ((256 << 20) + 1).to_bytes(8, "little")),
    "metadata into the pages": (96, (PAGES_OFFSET - 4096 + 1).to_bytes(8, "little")),
    "pages offset 0": (120, bytes(8)),
    "pages offset not aligned": (120, (PAGES_OFFSET + 1).to_bytes(8, "little")),
    "pages offset beyond": (120, ((1 << 64) - PAGE_SIZE).to_bytes(8, "little")),
    "pages length not aligned": (128, (len(PAGES) - 1).to_bytes(8, "little")),
    "pages length that overflows": (128, ((1 << 64) - PAGE_SIZE).to_bytes(8, "little")),
}


@pytest.mark.parametrize(("offset", "data"), FORGED.values(), ids=FORGED)
def test_numbers_that_contradict_each_other(sample: Sample, offset: int, data: bytes) -> None:
    forge_header(sample.path, offset, data)
    with pytest.raises(ImageCorrupt, match="header"):
        ImageFile.open(sample.path)


def test_metadata_is_bounded_even_if_the_file_is_as_long(sample: Sample) -> None:
    length = (256 << 20) + 1
    header = replace(sample.header(), metadata_length=length, pages_offset=1 << 29)
    with pytest.raises(ImageCorrupt, match=f"metadata of {length} bytes, more than the limit"):
        Header.decode(header.encode())


def test_page_data_longer_than_the_file(sample: Sample) -> None:
    forge_header(sample.path, 128, (1 << 40).to_bytes(8, "little"))
    with pytest.raises(ImageTruncated, match="is cut short"):
        ImageFile.open(sample.path)


@pytest.mark.parametrize(("version", "word"), [(0, "an older"), (2, "a newer"), ((1 << 32) - 1, "a newer")])
def test_another_format_version(sample: Sample, version: int, word: str) -> None:
    forge_header(sample.path, 8, version.to_bytes(4, "little"))
    with pytest.raises(ImageVersion, match=f"format version {version}, this orch reads version 1") as raised:
        ImageFile.open(sample.path)
    assert raised.value.hint is not None
    assert word in raised.value.hint


@pytest.mark.parametrize("bit", [1, 63])
def test_unknown_features(sample: Sample, bit: int) -> None:
    forge_header(sample.path, 16, (1 << bit).to_bytes(8, "little"))
    with pytest.raises(ImageVersion, match="flags 0x"):
        ImageFile.open(sample.path)


@pytest.mark.parametrize(
    ("offset", "data"),
    [
        (8, (TOTAL - 1).to_bytes(8, "little")),
        (16, bytes(16)),
        (32, bytes(16)),
        (48, bytes(8)),
        (48, bytes(16)),
        (48, (PAGES_END + 8).to_bytes(8, "little")),
        (48, (1 << 63).to_bytes(8, "little")),
        (56, bytes(8)),
        (56, (4097).to_bytes(8, "little")),
        (56, (4096).to_bytes(8, "little")),
        (56, MAXIMUM),
        (80, b"\1"),
        (4079, b"\1"),
    ],
)
def test_a_forged_trailer(sample: Sample, offset: int, data: bytes) -> None:
    forge_trailer(sample.path, offset, data)
    with pytest.raises(ImageCorrupt, match="trailer"):
        ImageFile.open(sample.path)


@settings(max_examples=300, deadline=None)
@given(
    offset=st.sampled_from([offset for offset, _ in HEADER_FIELDS.values() if offset < 136]),
    number=st.integers(0, (1 << 64) - 1) | st.integers(0, 1 << 20) | st.sampled_from([1 << n for n in range(64)]),
    in_trailer=st.booleans(),
)
def test_forged_numbers_give_an_image_error_or_the_same_contents(offset: int, number: int, in_trailer: bool) -> None:
    with TemporaryDirectory() as directory:
        path = write_sample(Path(directory, "image")).path
        (forge_trailer if in_trailer else forge_header)(path, offset, number.to_bytes(8, "little"))
        try:
            assert read_everything(path) == (METADATA, PAGES)
        except ImageError as error:
            assert str(path) in str(error)  # noqa: PT017 either way is right
