from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_samples import write_sample

from orchestrator.errors import ImageCorrupt, ImageVersion
from orchestrator.image.codec import decode_records, encode_records
from orchestrator.image.reader import ImageFile

pytest_plugins = ["image_fixtures"]


class Pipe(msgspec.Struct, tag="pipe", frozen=True, forbid_unknown_fields=True):
    content: bytes


class Regular(msgspec.Struct, tag="regular", frozen=True, forbid_unknown_fields=True):
    path: str
    offset: int


class Task(msgspec.Struct, frozen=True):
    pid: int
    files: list[Pipe | Regular]
    state: Literal["running", "stopped"] = "running"


class Model(msgspec.Struct, frozen=True):
    tasks: list[Task]


u64 = st.integers(0, (1 << 64) - 1)
files = st.builds(Pipe, st.binary(max_size=50)) | st.builds(Regular, st.text(max_size=20), u64)
models = st.builds(
    Model,
    st.lists(st.builds(Task, u64, st.lists(files, max_size=4), st.sampled_from(["running", "stopped"])), max_size=4),
)


@given(models)
def test_records_survive(model: Model) -> None:
    assert decode_records(encode_records(model), Model) == model


@given(models, st.data())
def test_cut_records_are_refused(model: Model, data: st.DataObject) -> None:
    raw = encode_records(model)
    with pytest.raises(ImageCorrupt):
        decode_records(raw[: data.draw(st.integers(0, len(raw) - 1))], Model)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_records_or_refused(raw: bytes) -> None:
    try:
        model = decode_records(raw, Model)
    except (ImageCorrupt, ImageVersion):
        return
    assert isinstance(model, Model)


def _task(**changes: object) -> bytes:
    return encode_records({"tasks": [{"pid": 1, "files": [], **changes}]})


def test_a_wrong_type_is_named_by_its_path() -> None:
    raw = _task(files=[{"type": "regular", "path": "/x", "offset": "7"}])
    with pytest.raises(
        ImageCorrupt, match=r"^job1: .*Expected `int`, got `str` - at `\$\.tasks\[0\]\.files\[0\]\.offset`"
    ):
        decode_records(raw, Model, name="job1")


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ImageCorrupt, match=r"missing required field `files` - at `\$\.tasks\[0\]`"):
        decode_records(encode_records({"tasks": [{"pid": 1}]}), Model)


@pytest.mark.parametrize("tag", ["io_uring", "it's", "a\nb", "\x1b[2J", "' - at `$.x", ""])
def test_an_unknown_kind_of_record_is_refused_by_name(tag: str) -> None:
    with pytest.raises(ImageVersion) as raised:
        decode_records(_task(files=[{"type": tag}]), Model, name="job1")
    assert str(raised.value) == f"job1: record kind {tag!r} at $.tasks[0].files[0] is unknown to this orch"
    assert raised.value.hint == "use a newer orch for this image"


def test_an_unknown_field_is_refused_by_name() -> None:
    with pytest.raises(ImageVersion, match=r"field 'lease' of record \$\.tasks\[0\]\.files\[0\] is unknown"):
        decode_records(_task(files=[{"type": "pipe", "content": b"", "lease": 1}]), Model)


def test_text_of_an_image_cannot_steer_the_terminal_nor_fill_it() -> None:
    for state in ("\x1b[2J\u202e", "x" * 1_000_000):
        for raw in (_task(state=state), _task(files=[{"type": state}]), _task(files=[{"type": "pipe", state: 1}])):
            with pytest.raises((ImageCorrupt, ImageVersion)) as raised:
                decode_records(raw, Model)
            assert str(raised.value).isprintable()
            assert len(str(raised.value)) < 500


def test_an_unknown_value_is_not_an_unknown_kind() -> None:
    with pytest.raises(ImageCorrupt, match="Invalid enum value 'asleep'"):
        decode_records(_task(state="asleep"), Model)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc1",
        b"\x91" * 1_000_000,
        b"\x81\xa5tasks\xdd\xff\xff\xff\xff",
        b"\x81\xa5tasks" + b"\xdd\xff\xff\xff\xff" * 1000,
        b"\xc6\xff\xff\xff\xff",
    ],
)
@pytest.mark.parametrize("kind", [Model, object])
def test_small_bytes_that_claim_much_are_refused(raw: bytes, kind: type[object]) -> None:
    with pytest.raises(ImageCorrupt):
        decode_records(raw, kind)


def test_an_image_decodes_its_metadata_and_names_itself(target: Path) -> None:
    model = Model([Task(1, [Pipe(b"in flight")])])
    write_sample(target, metadata=encode_records(model))
    with ImageFile.open(target) as image:
        assert image.decode(Model) == model
        with pytest.raises(ImageCorrupt, match=str(target)):
            image.decode(int)
