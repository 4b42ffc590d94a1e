"""Records to bytes and back: msgpack by msgspec, with typed and bounded decoding."""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar

import msgspec

from orchestrator.errors import ImageCorrupt, ImageVersion

T = TypeVar("T")

# What msgspec says of a tag that no struct of the union has, and of a field that a struct with
# forbid_unknown_fields has not. Enums and literals have messages of their own ("Invalid enum value").
_UNKNOWN_TAG: Final = re.compile(r"Invalid value (?P<tag>'.*?'|-?\d+)(?: - at `(?P<at>.*)`)?", re.DOTALL)
_UNKNOWN_FIELD: Final = re.compile(r"Object contains unknown field `(?P<field>.*?)`(?: - at `(?P<at>.*)`)?", re.DOTALL)
_NEWER: Final = "use a newer orch for this image"


def encode_records(obj: Any) -> bytes:
    """Return `obj`, structs and plain data, as msgpack."""
    return msgspec.msgpack.encode(obj)


def decode_records(data: bytes | memoryview, kind: type[T], *, name: str = "the image") -> T:
    """Decode `data` as a `kind` and nothing else; `name` is what messages call its source.

    Raises ImageCorrupt naming the record by its path, and ImageVersion for a kind of record or a field that
    this orch does not know.
    """
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except msgspec.ValidationError as error:
        text = str(error)
        if found := _UNKNOWN_TAG.fullmatch(text):
            at = found["at"] or "$"
            raise ImageVersion(
                f"{name}: record kind {found['tag']} at {at} is unknown to this orch", hint=_NEWER
            ) from error
        if found := _UNKNOWN_FIELD.fullmatch(text):
            at = found["at"] or "$"
            raise ImageVersion(
                f"{name}: field {found['field']!r} of record {at} is unknown to this orch", hint=_NEWER
            ) from error
        raise ImageCorrupt(f"{name}: a record is damaged: {text}") from error
    except (msgspec.DecodeError, RecursionError, MemoryError, OverflowError) as error:
        raise ImageCorrupt(f"{name}: the records are damaged: {str(error) or 'they do not fit into memory'}") from error
