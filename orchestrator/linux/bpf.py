"""BPF objects by descriptor and by number. See bpf(2).

Only what looks: objects are made by tapes. Attributes are packed as <linux/bpf.h> lays out ``union bpf_attr``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from orchestrator.linux.call import machine, syscall
from orchestrator.linux.syscalls import numbers

MAP_CREATE, MAP_LOOKUP_ELEM, MAP_UPDATE_ELEM, OBJ_GET = 0, 1, 2, 7
PROG_GET_NEXT_ID, PROG_GET_FD_BY_ID, MAP_GET_FD_BY_ID, OBJ_GET_INFO_BY_FD = 11, 13, 14, 15
BTF_LOAD, BTF_GET_FD_BY_ID, MAP_LOOKUP_AND_DELETE_ELEM, MAP_FREEZE = 18, 19, 21, 22
MAP_LOOKUP_BATCH, MAP_UPDATE_BATCH = 24, 26

HASH, ARRAY, PERCPU_HASH, PERCPU_ARRAY, LRU_HASH, LRU_PERCPU_HASH = 1, 2, 5, 6, 9, 10
LPM_TRIE, ARRAY_OF_MAPS, HASH_OF_MAPS, QUEUE, STACK = 11, 12, 13, 22, 23
PER_CPU = frozenset((PERCPU_HASH, PERCPU_ARRAY, LRU_PERCPU_HASH))
OF_MAPS = frozenset((ARRAY_OF_MAPS, HASH_OF_MAPS))
F_RDONLY, F_WRONLY = 1 << 3, 1 << 4

BATCH = struct.Struct("=QQQQIIQQ")
"""in_batch, out_batch, keys, values, count, map_fd, elem_flags, flags."""
BATCH_COUNT_AT = 32
ELEMENT = struct.Struct("=I4xQQQ")
"""map_fd, key, value, flags."""
_info_request = struct.Struct("=IIQ")
_by_id = struct.Struct("=III")
_obj_get = struct.Struct("=QII")
_map_info = struct.Struct("=IIIIII16sIIQQIIIIQ")
assert (BATCH.size, ELEMENT.size, _map_info.size) == (56, 32, 88)
_btf_info = struct.Struct("=QIIQII")
_PROG_NR_MAPS_AT, _PROG_MAP_IDS_AT, _PROG_NAME_AT, _PROG_BYTES = 52, 56, 64, 80
_NAME_BYTES = 16
_MOST_IN_A_BATCH = 4096
_NR_bpf = numbers(machine())["bpf"]


class MapInfo(NamedTuple):
    """What BPF_OBJ_GET_INFO_BY_FD tells of a map."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: bytes
    ifindex: int
    kernel_value_type: int
    netns_dev: int
    netns_ino: int
    btf: int
    btf_key: int
    btf_value: int
    kernel_btf: int
    extra: int


def _bpf(command: int, attributes: ctypes.Array[ctypes.c_char], size: int) -> int:
    return syscall(_NR_bpf, command, ctypes.addressof(attributes), size)


def _call(command: int, attributes: bytes) -> int:
    return _bpf(command, ctypes.create_string_buffer(attributes, len(attributes)), len(attributes))


def _info(fd: int, buffer: ctypes.Array[ctypes.c_char]) -> None:
    _call(OBJ_GET_INFO_BY_FD, _info_request.pack(fd, len(buffer), ctypes.addressof(buffer)))


def map_info(fd: int) -> MapInfo:
    """Return what a map is."""
    buffer = ctypes.create_string_buffer(_map_info.size)
    _info(fd, buffer)
    info = MapInfo._make(_map_info.unpack(buffer.raw))
    return info._replace(name=info.name.rstrip(b"\0"))


def open_map(number: int) -> int:
    """Open a map by its number, for reading and writing."""
    return _call(MAP_GET_FD_BY_ID, _by_id.pack(number, 0, 0))


def open_btf(number: int) -> int:
    """Open type information by its number."""
    return _call(BTF_GET_FD_BY_ID, _by_id.pack(number, 0, 0))


def read_btf(fd: int) -> tuple[int, bytes, bool]:
    """Return number and contents of type information, and whether it is the kernel's own."""
    fixed = ctypes.create_string_buffer(_btf_info.size)
    _info(fd, fixed)
    _, size, *_ = _btf_info.unpack(fixed.raw)
    content = ctypes.create_string_buffer(size)
    fixed.raw = _btf_info.pack(ctypes.addressof(content), size, 0, 0, 0, 0)
    _info(fd, fixed)
    _, _, number, _, _, is_kernel = _btf_info.unpack(fixed.raw)
    return number, content.raw, bool(is_kernel)


def _opened(next_number: int, open_one: int, after: int) -> Iterator[tuple[int, int]]:
    """Yield number and descriptor of every object of a kind; the descriptor is closed behind."""
    number = after
    while True:
        attributes = ctypes.create_string_buffer(_by_id.pack(number, 0, 0), _by_id.size)
        try:
            _bpf(next_number, attributes, _by_id.size)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        number = _by_id.unpack(attributes.raw)[1]
        try:
            fd = _call(open_one, _by_id.pack(number, 0, 0))
        except OSError as error:
            if error.errno == errno.ENOENT:  # gone again
                continue
            raise
        try:
            yield number, fd
        finally:
            os.close(fd)


def programs() -> Iterator[tuple[int, str, tuple[int, ...]]]:
    """Yield every program of the machine: its number, its name, and the numbers of the maps it uses."""
    for number, fd in _opened(PROG_GET_NEXT_ID, PROG_GET_FD_BY_ID, 0):
        info = ctypes.create_string_buffer(_PROG_BYTES)
        _info(fd, info)
        (count,) = struct.unpack_from("=I", info.raw, _PROG_NR_MAPS_AT)
        name = info.raw[_PROG_NAME_AT : _PROG_NAME_AT + _NAME_BYTES].rstrip(b"\0").decode(errors="replace")
        maps = (ctypes.c_uint32 * count)()
        if count:
            asked = bytearray(_PROG_BYTES)
            struct.pack_into("=IQ", asked, _PROG_NR_MAPS_AT, count, ctypes.addressof(maps))
            info.raw = bytes(asked)
            _info(fd, info)
        yield number, name, tuple(maps)


def open_pinned(path: str) -> int:
    """Open what a file of a bpffs stands for."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    return _call(OBJ_GET, _obj_get.pack(ctypes.addressof(name), 0, 0))


def look_up(fd: int, key: bytes | None, value_size: int) -> bytes:
    """Return the value at a key; ENOENT if there is none. Without a key: the next element of a queue or stack."""
    return _element(MAP_LOOKUP_ELEM, fd, key, value_size)


def take_out(fd: int, value_size: int) -> bytes:
    """Take the next element out of a queue or stack; ENOENT if it is empty."""
    return _element(MAP_LOOKUP_AND_DELETE_ELEM, fd, None, value_size)


def put_in(fd: int, value: bytes) -> None:
    """Add an element to a queue or stack."""
    buffer = ctypes.create_string_buffer(value, len(value))
    _call(MAP_UPDATE_ELEM, ELEMENT.pack(fd, 0, ctypes.addressof(buffer), 0))


def _element(command: int, fd: int, key: bytes | None, value_size: int) -> bytes:
    asked = ctypes.create_string_buffer(key, len(key)) if key is not None else None
    value = ctypes.create_string_buffer(value_size)
    _call(command, ELEMENT.pack(fd, ctypes.addressof(asked) if asked else 0, ctypes.addressof(value), 0))
    return value.raw


def entries(fd: int, key_size: int, value_size: int, most: int) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield all entries of a map that nobody changes, in batches: how many, their keys, their values."""
    room = min(most, _MOST_IN_A_BATCH)
    places = [ctypes.create_string_buffer(max(key_size, 4)) for _ in range(2)]
    before = 0
    while True:
        keys, values = ctypes.create_string_buffer(key_size * room), ctypes.create_string_buffer(value_size * room)
        after = ctypes.addressof(places[0])
        attributes = ctypes.create_string_buffer(
            BATCH.pack(before, after, ctypes.addressof(keys), ctypes.addressof(values), room, fd, 0, 0), BATCH.size
        )
        last = False
        try:
            _bpf(MAP_LOOKUP_BATCH, attributes, BATCH.size)
        except OSError as error:
            if error.errno == errno.ENOSPC and room < most:  # more lie in one place of a hash
                room = min(most, 2 * room)
                continue
            if error.errno != errno.ENOENT:
                raise
            last = True
        (count,) = struct.unpack_from("=I", attributes.raw, BATCH_COUNT_AT)
        if count:
            yield count, keys.raw[: count * key_size], values.raw[: count * value_size]
        if last:
            return
        before = after
        places.reverse()
