"""docs/image-format.md is the specification: an image is read here by its tables alone."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import xxhash
from image_samples import MACHINE, METADATA, PAGE_SIZE, PAGES, Sample, write_sample

pytest_plugins = ["image_fixtures"]

DOCUMENT = Path(__file__).parents[3] / "docs" / "image-format.md"
ROW = re.compile(r"\| *(\d+) \| *(\d+) \| *(\w+) *\| *([\w ]+?) *\|")


def _fields(section: str, page: bytes) -> dict[str, int | bytes | UUID]:
    """Take a page apart as the table of a section says."""
    text = DOCUMENT.read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    fields: dict[str, int | bytes | UUID] = {}
    expected = 0
    for offset, size, kind, name in ((int(a), int(b), c, d) for a, b, c, d in ROW.findall(text)):
        assert offset == expected, f"{section}: {name} leaves a gap"
        expected = offset + size
        raw = page[offset : offset + size]
        match kind:
            case "u32" | "u64":
                assert size == int(kind[1:]) // 8
                value: int | bytes | UUID = int.from_bytes(raw, "little")
            case "UUID":
                value = UUID(bytes=raw)
            case "ASCII":
                value = raw.rstrip(b"\0")
            case _:
                value = raw
        if name == "reserved":
            assert not any(raw)
        fields[name] = value
    assert expected == len(page)
    return fields


@pytest.fixture
def parent() -> UUID:
    return uuid4()


@pytest.fixture
def sample(target: Path, parent: UUID) -> Sample:
    return write_sample(target, parent=parent)


def test_header(sample: Sample, parent: UUID) -> None:
    data = sample.path.read_bytes()
    fields = _fields("Header page", data[:4096])
    created, offset = fields.pop("created"), fields["pages offset"]
    assert isinstance(created, int)
    assert isinstance(offset, int)
    assert 1_700_000_000 < created / 1e9 < 1e11
    assert data[offset : offset + len(PAGES)] == PAGES
    assert fields == {
        "magic": b"ORCHCKPT",
        "format version": 1,
        "header size": 4096,
        "flags": 0,
        "architecture": MACHINE.encode(),
        "page size": PAGE_SIZE,
        "image id": sample.image_id,
        "parent id": parent,
        "metadata offset": 4096,
        "metadata length": len(METADATA),
        "metadata checksum": xxhash.xxh3_128_digest(METADATA),
        "pages offset": offset,
        "pages length": len(PAGES),
        "reserved": bytes(3944),
        "header checksum": xxhash.xxh3_128_digest(data[:4080]),
    }


def test_trailer_and_table(sample: Sample) -> None:
    data = sample.path.read_bytes()
    fields = _fields("Trailer page", data[-4096:])
    offset = data.index(PAGES) + len(PAGES)
    table = data[offset : offset + 40]
    assert fields == {
        "magic": b"ORCHTAIL",
        "total length": len(data),
        "image id": sample.image_id,
        "header checksum": data[4080:4096],
        "table offset": offset,
        "table length": 40,
        "table checksum": xxhash.xxh3_128_digest(table),
        "reserved": bytes(4000),
        "trailer checksum": xxhash.xxh3_128_digest(data[-4096:-16]),
    }
    assert _fields("Checksum table", table[:32]) == {
        "magic": b"ORCHSUMS",
        "block length": 1 << 20,
        "covered length": len(PAGES),
        "reserved": 0,
    }
    assert int.from_bytes(table[32:], "little") == xxhash.xxh3_64_intdigest(PAGES)
    assert not any(data[offset + 40 : -4096])
