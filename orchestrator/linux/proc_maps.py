"""/proc/PID/maps and smaps: the VMAs of a process and their flags.

Both are consistent only while the process is held: the kernel prints them page by page.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from mmap import PROT_EXEC, PROT_READ, PROT_WRITE
from typing import NamedTuple

from orchestrator.linux.procfs import read_file


class MapLine(NamedTuple):
    """One VMA. ``prot`` holds PROT_* bits, ``dev`` is (major, minor).

    ``path`` is as the kernel prints it, e.g. b"[heap]", b"[anon:name]", b"/memfd:name", b"" for
    anonymous memory. A file may itself be called "x (deleted)", and a backslash is not escaped, so
    what must be certain is asked of /proc/PID/map_files. ``page_size`` (bytes) is known from smaps
    alone; 0 from maps.
    """

    start: int
    end: int
    prot: int
    shared: bool
    offset: int
    dev: tuple[int, int]
    inode: int
    path: bytes
    deleted: bool
    page_size: int = 0
    key: int = 0
    """The protection key; from smaps alone."""


SPECIAL = frozenset((b"[vdso]", b"[vvar]", b"[vvar_vclock]", b"[vsyscall]"))
"""What the kernel calls the mappings that it makes in every process by itself."""


def is_private(line: MapLine) -> bool:
    """Whether a mapping may have pages of the process's own."""
    return not line.shared and line.path not in SPECIAL


VmFlags = tuple[str, ...]
"""The two-letter codes of the VmFlags line, in the kernel's order. See proc_pid_smaps(5)."""

_LINE = re.compile(rb"([0-9a-f]+)-([0-9a-f]+) (....) ([0-9a-f]+) ([0-9a-f]+:[0-9a-f]+) (\d+) *([^\n]*)(?:\n|\Z)")
_DELETED = b" (deleted)"
_PERMISSIONS = {
    b"".join((b"r" if r else b"-", b"w" if w else b"-", b"x" if x else b"-", b"s" if s else b"p")): (r | w | x, s)
    for r in (0, PROT_READ)
    for w in (0, PROT_WRITE)
    for x in (0, PROT_EXEC)
    for s in (False, True)
}


def _device(text: bytes) -> tuple[int, int]:
    major, _, minor = text.partition(b":")
    return int(major, 16), int(minor, 16)


def _path(text: bytes) -> tuple[bytes, bool]:
    if b"\\012" in text:
        text = text.replace(b"\\012", b"\n")
    if text.endswith(_DELETED):
        return text[: -len(_DELETED)], True
    return text, False


def parse_maps(raw: bytes) -> list[MapLine]:
    """Parse a maps file, lowest address first."""
    matches = _LINE.findall(raw)
    lines = raw.count(b"\n")
    if len(matches) != lines:
        raise ValueError(f"maps: {lines} lines, but {len(matches)} that are understood")
    return _lines(matches, [0] * len(matches), [0] * len(matches))


def _lines(matches: list[tuple[bytes, ...]], page_sizes: list[int], keys: list[int]) -> list[MapLine]:
    devices: dict[bytes, tuple[int, int]] = {}
    paths: dict[bytes, tuple[bytes, bool]] = {}
    lines = []
    for (start, end, perms, offset, dev, inode, text), page_size, key in zip(matches, page_sizes, keys, strict=True):
        prot, shared = _PERMISSIONS[perms]
        device = devices.get(dev)
        if device is None:
            device = devices[dev] = _device(dev)
        path = paths.get(text)
        if path is None:
            path = paths[text] = _path(text)
        lines.append(
            MapLine(
                int(start, 16),
                int(end, 16),
                prot,
                shared,
                int(offset, 16),
                device,
                int(inode),
                path[0],
                path[1],
                page_size,
                key,
            )
        )
    return lines


def read_maps(pid: int) -> list[MapLine]:
    """Read the VMAs of a process. Empty for a zombie and for a kernel thread."""
    return parse_maps(read_file(f"/proc/{pid}/maps"))


_KEY = b"\nProtectionKey:"
_FLAGS_SEEN: dict[bytes, VmFlags] = {}
_LINES_SEEN: dict[tuple[bytes, int, int], MapLine] = {}
_MOST_LINES_SEEN = 100_000


def parse_smaps_flags(raw: bytes) -> list[tuple[MapLine, VmFlags]]:
    """Parse a smaps file for its VMAs, their page sizes and their flags."""
    # Every record ends with its VmFlags line, and no path holds a newline: so these bytes part the records.
    parts = raw.split(b"\nVmFlags:")
    headers = []
    codes = []
    page_sizes = []
    keys = []
    with_keys = _KEY in raw
    body = parts[0]
    for part in parts[1:]:
        header, _, rest = body.partition(b"\n")
        headers.append(header)
        page_sizes.append(4096 if b"KernelPageSize:        4 kB\n" in rest else _kernel_page_size(rest))
        keys.append(_protection_key(rest) if with_keys else 0)
        text, _, body = part.partition(b"\n")
        flags = _FLAGS_SEEN.get(text)
        if flags is None:
            flags = _FLAGS_SEEN[text] = tuple(text.decode().split())
        codes.append(flags)
    return list(zip(_known_lines(headers, page_sizes, keys), codes, strict=True))


def _known_lines(headers: list[bytes], page_sizes: list[int], keys: list[int]) -> Iterator[MapLine]:
    """Parse the first lines of records, each once: processes that were forked have many in common."""
    records = list(zip(headers, page_sizes, keys, strict=True))
    new = [record for record in records if record not in _LINES_SEEN]
    if new:
        if len(_LINES_SEEN) > _MOST_LINES_SEEN:
            _LINES_SEEN.clear()
            new = records
        # A header that the pattern does not understand leaves the two lists unequal: zip refuses them.
        matches = _LINE.findall(b"\n".join([header for header, _, _ in new]))
        lines = _lines(matches, [page_size for _, page_size, _ in new], [key for _, _, key in new])
        _LINES_SEEN.update(zip(new, lines, strict=True))
    return (_LINES_SEEN[record] for record in records)


def _protection_key(record: bytes) -> int:
    """Return the key of a record; the kernel shows none where the processor has none."""
    at = record.find(_KEY)
    return int(record[at + len(_KEY) :].split(None, 1)[0]) if at >= 0 else 0


def _kernel_page_size(record: bytes) -> int:
    found = re.search(rb"^KernelPageSize: +(\d+) kB$", record, re.MULTILINE)
    if found is None:
        raise ValueError("smaps: a VMA without KernelPageSize")
    return int(found[1]) * 1024


def read_smaps_flags(pid: int) -> list[tuple[MapLine, VmFlags]]:
    """Read the VMAs of a process with their flags. The kernel walks all its page tables for this."""
    return parse_smaps_flags(read_file(f"/proc/{pid}/smaps"))


class FlagsAhead:
    """What :func:`read_smaps_flags` returns, being read by a thread while we do something else."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._raw: bytes | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            self._raw = read_file(f"/proc/{self._pid}/smaps")

    def result(self) -> list[tuple[MapLine, VmFlags]]:
        """Wait for it."""
        self._thread.join()
        return read_smaps_flags(self._pid) if self._raw is None else parse_smaps_flags(self._raw)
