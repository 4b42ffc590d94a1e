"""Maps of BPF, with what is in them. See bpf(2).

A map is found, and opened once more, by its number. Its entries are read in batches and lie in the image as page data:
first all keys, then all values. Queues and stacks give out what is in them only by losing it; a child of orch takes
it out and puts it back, which it does even if orch is killed meanwhile.
"""

from __future__ import annotations

import errno
import os
import signal
import struct

from orchestrator.errors import CannotHonour
from orchestrator.ids import DepotFd, ObjectId
from orchestrator.kinds.files.bpf_users import BpfUsers
from orchestrator.kinds.files.btf import btf_object, open_again, open_btf
from orchestrator.kinds.files.kind import Depot, FdView, FileKind, OpenFile
from orchestrator.kinds.files.leak import map_identity
from orchestrator.kinds.files.reopening import set_status
from orchestrator.kinds.record import Content, Record
from orchestrator.kinds.scope import Scope, Shared
from orchestrator.linux import bpf
from orchestrator.linux.cpus import possible_cpus
from orchestrator.linux.proc_fd import read_fdinfo
from orchestrator.namespaces.inside import inside

_STORED = frozenset((
    bpf.HASH, bpf.ARRAY, bpf.PERCPU_HASH, bpf.PERCPU_ARRAY, bpf.LRU_HASH, bpf.LRU_PERCPU_HASH, bpf.LPM_TRIE,
))  # fmt: skip
_TAKEN_OUT = frozenset((bpf.QUEUE, bpf.STACK))
_KERNEL_FIELDS = (b"bpf_timer", b"bpf_wq", b"bpf_task_work", b"bpf_list_head", b"bpf_rb_root", b"kptr", b"uptr")
"""What a value may hold, by the names of its types and tags, that no system call shows or sets."""
_create = struct.Struct("=IIIIIII16sIIIIIQ")  # see _make()
assert _create.size == 72
_NUMBER_BYTES = 4
_PROT_READ_WRITE = 3
_MAP_PRIVATE_ANONYMOUS_FIXED_NOREPLACE = 0x100022
_PIECE = 1 << 30


class BpfMap(Record, frozen=True, tag="bpf-map"):
    """The map itself; descriptors, and maps of maps, refer to it."""

    map_type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: bytes
    extra: int
    frozen: bool
    count: int
    """How many entries ``content`` has: their keys, then their values, each in whole bytes."""
    content: Content
    btf: ObjectId = ObjectId(-1)
    btf_key: int = 0
    btf_value: int = 0
    inner: tuple[tuple[bytes, ObjectId], ...] = ()
    """Of a map of maps: key and map."""
    queue: tuple[bytes, ...] = ()
    """Of a queue or stack: the elements in the order they must be put in."""


class BpfMapFile(Record, frozen=True, tag="bpf-map-file"):
    """A descriptor of a map."""

    object: ObjectId
    cpus: int = 0
    """Of a per-CPU map: how many values each key has."""


class Refused(Exception):
    """Why a map cannot be saved."""


def _recognise(view: FdView) -> bool:
    return view.link == "anon_inode:bpf-map" and view.fd >= 0  # a mapping does not say of which map it is


def _capture(view: FdView, scope: Scope) -> BpfMapFile | None:
    # What the job opened for writing only cannot be read through a descriptor of its own.
    number = int(view.info.get("map_id") or "0")
    try:
        fd = bpf.open_map(number)
        scope.closers.append(fd)
        of = _map_object(fd, view, scope)
    except (Refused, OSError) as error:
        reason = str(error) if isinstance(error, Refused) else f"it cannot be read: {error.strerror}"
        scope.unsupported(view.pid, view.what, f"BPF map {number}: {reason}")
        return None
    cpus = possible_cpus() if bpf.map_info(fd).type in bpf.PER_CPU else 0
    return BpfMapFile(of, cpus)


def _map_object(fd: int, view: FdView, scope: Scope) -> ObjectId:
    info = bpf.map_info(fd)
    if info.type not in _STORED | _TAKEN_OUT | bpf.OF_MAPS:
        raise Refused(f"a map of type {info.type} cannot be saved")
    if info.ifindex:
        raise Refused("it lies in a network device")
    btf = _btf_of(info, scope)
    frozen = read_fdinfo(os.getpid(), fd).get("frozen") == "1"
    is_filled = info.type in _TAKEN_OUT and not _is_empty(fd, info)
    if is_filled and frozen:
        raise Refused("it is frozen, and what is in it can only be taken out")
    inner = _inner_maps(fd, info, view, scope) if info.type in bpf.OF_MAPS else ()
    scope.sole(BpfUsers, lambda: BpfUsers(scope)).note(info.id, view.pid, view.what)
    scope.shared.setdefault(map_identity(info.id), Shared(view.pid, view.what, None))

    def make(_: ObjectId) -> BpfMap:
        count, content = _store(fd, info, scope) if info.type in _STORED else (0, Content(0, []))
        queue = _look_into(fd, info, view) if is_filled else ()
        return BpfMap(
            info.type,
            info.key_size,
            info.value_size,
            info.max_entries,
            info.flags,
            info.name,
            info.extra,
            frozen,
            count,
            content,
            btf,
            info.btf_key,
            info.btf_value,
            inner,
            queue,
        )

    return scope.object("bpf-map", info.id, make)


def _btf_of(info: bpf.MapInfo, scope: Scope) -> ObjectId:
    if info.kernel_value_type:
        raise Refused("its values are of a type of the kernel's")
    if not info.btf:
        return ObjectId(-1)
    fd = bpf.open_btf(info.btf)
    try:
        _, content, _ = bpf.read_btf(fd)
        # Its users could not have put anything there by a system call.
        if any(b"\0" + field + b"\0" in content for field in _KERNEL_FIELDS):
            raise Refused("its values may hold timers or objects of the kernel")
        of = btf_object(fd, scope)
    finally:
        os.close(fd)
    if of is None:
        raise Refused("its values are of a type of the kernel's")
    return of


def _inner_maps(fd: int, info: bpf.MapInfo, view: FdView, scope: Scope) -> tuple[tuple[bytes, ObjectId], ...]:
    inner = []
    for count, keys, values in bpf.entries(fd, info.key_size, _NUMBER_BYTES, info.max_entries):
        for place in range(count):
            key = keys[place * info.key_size : (place + 1) * info.key_size]
            number = int.from_bytes(values[place * _NUMBER_BYTES : (place + 1) * _NUMBER_BYTES], "little")
            if number:
                inner_fd = bpf.open_map(number)
                scope.closers.append(inner_fd)
                inner.append((key, _map_object(inner_fd, view, scope)))
    if not inner:
        raise Refused("it holds no map yet, and the kernel does not show what kind of map it takes")
    return tuple(inner)


def _stride(type_: int, value_size: int, cpus: int) -> int:
    return (value_size + 7 & -8) * cpus if type_ in bpf.PER_CPU else value_size


def _store(fd: int, info: bpf.MapInfo, scope: Scope) -> tuple[int, Content]:
    """Plan to put the entries into the image."""
    stride = _stride(info.type, info.value_size, possible_cpus())
    keys_fd = os.memfd_create("keys", os.MFD_CLOEXEC)
    values_fd = os.memfd_create("values", os.MFD_CLOEXEC)
    scope.closers.append(keys_fd)
    total = 0
    try:
        for count, keys, values in bpf.entries(fd, info.key_size, stride, info.max_entries):
            _write(keys_fd, keys)
            _write(values_fd, values)
            total += count
        size = os.fstat(values_fd).st_size
        done = 0
        while done < size:
            done += os.sendfile(keys_fd, values_fd, done, min(size - done, _PIECE))
    finally:
        os.close(values_fd)
    return total, scope.store(keys_fd, os.fstat(keys_fd).st_size)


def _write(fd: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(fd, left) :]


def _is_empty(fd: int, info: bpf.MapInfo) -> bool:
    try:
        bpf.look_up(fd, None, info.value_size)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return True
        raise
    return False


def _look_into(fd: int, info: bpf.MapInfo, view: FdView) -> tuple[bytes, ...]:
    def look() -> list[bytes]:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        found: list[bytes] = []
        try:
            while True:
                found.append(bpf.take_out(fd, info.value_size))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
        finally:
            if info.type == bpf.STACK:
                found.reverse()
            for element in found:
                bpf.put_in(fd, element)
        return found

    return tuple(inside(view.pid, (), look, list[bytes]))


def _open_map(of: ObjectId, depot: Depot) -> DepotFd:
    """Make a map with all that is in it, once, and return its standing descriptor, which reads and writes it."""
    standing, new = depot.extra("bpf-map", of)
    if not new:
        return standing
    was: BpfMap = depot.objects[of]
    inner = {id_: _open_map(id_, depot) for _, id_ in was.inner}
    btf = open_btf(was.btf, depot) if was.btf >= 0 else 0
    tape = depot.tape
    pattern = next(iter(inner.values()), 0)
    attributes = _create.pack(
        was.map_type, was.key_size, was.value_size, was.max_entries, was.flags, pattern, 0, was.name,
        0, btf, was.btf_key, was.btf_value, 0, was.extra,
    )  # fmt: skip
    tape.bpf(bpf.MAP_CREATE, attributes, len(attributes))
    depot.keep(0, standing)
    for key, id_ in was.inner:
        _update(depot, standing, key, struct.pack("=I", inner[id_]))
    for element in was.queue:
        _update(depot, standing, b"", element)
    if was.count:
        _fill(depot, standing, was)
    if was.frozen:
        tape.bpf(bpf.MAP_FREEZE, struct.pack("=I", standing), 4)
    return standing


def _update(depot: Depot, standing: DepotFd, key: bytes, value: bytes) -> None:
    tape = depot.tape
    attributes = tape.block(bpf.ELEMENT.pack(standing, 0, 0, 0))
    if key:
        tape.point(attributes, 8, tape.block(key))
    tape.point(attributes, 16, tape.block(value))
    tape.bpf(bpf.MAP_UPDATE_ELEM, attributes, attributes.size)


def _fill(depot: Depot, standing: DepotFd, was: BpfMap) -> None:
    """Read keys and values from the image into memory, and put them all in."""
    tape, at, size = depot.tape, depot.scratch_address, was.content.size
    tape.mmap(at, size, _PROT_READ_WRITE, _MAP_PRIVATE_ANONYMOUS_FIXED_NOREPLACE, -1, 0)
    for extent in was.content.extents:
        for done in range(0, extent.length, _PIECE):
            part = min(_PIECE, extent.length - done)
            tape.pread64(depot.image, at + extent.start + done, part, depot.pages_at + extent.at + done)
    values = at + was.count * was.key_size
    attributes = bpf.BATCH.pack(0, 0, at, values, was.count, standing, 0, 0)
    tape.bpf(bpf.MAP_UPDATE_BATCH, attributes, len(attributes))
    tape.munmap(at, size)


def _rebuild(file: OpenFile, depot: Depot) -> None:
    access = {os.O_RDONLY: bpf.F_RDONLY, os.O_WRONLY: bpf.F_WRONLY}.get(file.flags & os.O_ACCMODE, 0)
    open_again(depot, _open_map(file.body.object, depot), bpf.MAP_GET_FD_BY_ID, access)
    set_status(depot.tape, 0, file.flags)
    depot.keep(0, depot.slot(file.id))


def _check(file: OpenFile) -> None:
    cpus = possible_cpus() if file.body.cpus else 0
    if cpus != file.body.cpus:
        raise CannotHonour(
            f"a BPF map of the job has values for {file.body.cpus} processors, and this machine may have {cpus}",
            hint="restore on a machine with as many possible processors",
        )


KIND = FileKind(
    "BPF map", BpfMapFile, _recognise, _capture, _rebuild, objects=(BpfMap,), check=_check, links="anon_inode:"
)
