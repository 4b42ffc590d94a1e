"""Records to bytes and back: msgpack by msgspec, with typed and bounded decoding."""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar

import msgspec

from orchestrator.errors import ImageCorrupt, ImageVersion

T = TypeVar("T")

# What msgspec says of a tag that no struct of the union has, and of a field that a struct with
# forbid_unknown_fields has not. Enums and literals have messages of their own ("Invalid enum value").
_UNKNOWN_TAG: Final = re.compile(r"Invalid value (?:'(?P<tag>.*)'|(?P<number>-?\d+))(?: - at `(?P<at>.*)`)?", re.DOTALL)
_UNKNOWN_FIELD: Final = re.compile(r"Object contains unknown field `(?P<field>.*?)`(?: - at `(?P<at>.*)`)?", re.DOTALL)
_NEWER: Final = "use a newer orch for this image"
_LONGEST_QUOTE: Final = 300


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
            kind_found = found["number"] or repr(_shorten(found["tag"]))
            at = _printable(found["at"] or "$").rpartition(".")[0] or "$"  # without the name of the tag's field
            raise ImageVersion(
                f"{name}: record kind {kind_found} at {at} is unknown to this orch", hint=_NEWER
            ) from error
        if found := _UNKNOWN_FIELD.fullmatch(text):
            at = _printable(found["at"] or "$")
            raise ImageVersion(
                f"{name}: field {_shorten(found['field'])!r} of record {at} is unknown to this orch", hint=_NEWER
            ) from error
        raise ImageCorrupt(f"{name}: a record is damaged: {_printable(text)}") from error
    except (msgspec.DecodeError, RecursionError, MemoryError, OverflowError) as error:
        raise ImageCorrupt(f"{name}: the records are damaged: {str(error) or 'they do not fit into memory'}") from error


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "..."


def _printable(text: str) -> str:
    """Escape what could steer a terminal: some of the text comes from the image."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in _shorten(text))
