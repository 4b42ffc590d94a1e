"""Paths in records: any bytes, and as UTF-8 where that is what they are."""

from __future__ import annotations

import os

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.kinds.record import native_path, portable_path, shown_path


@given(st.binary(max_size=60).filter(lambda raw: b"\0" not in raw))
def test_every_path_returns_by_way_of_an_image(raw: bytes) -> None:
    path = portable_path(os.fsdecode(raw))
    assert os.fsencode(native_path(msgspec.msgpack.decode(msgspec.msgpack.encode(path), type=str))) == raw


@pytest.mark.parametrize(
    ("raw", "shown"), [(b"/plain", "/plain"), (b"/caf\xc3\xa9", "/café"), (b"/caf\xe9", "/caf\\xe9")]
)
def test_people_see_what_they_can_read(raw: bytes, shown: str) -> None:
    assert shown_path(portable_path(os.fsdecode(raw))) == shown
