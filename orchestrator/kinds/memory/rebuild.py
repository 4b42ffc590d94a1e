"""Write the tape entries that turn the memory a process inherited into the memory it shall have."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from orchestrator.errors import ImageCorrupt
from orchestrator.image.places import number_of, offset_in
from orchestrator.kinds.memory.aio import AIO, rebuild_ring
from orchestrator.kinds.memory.huge import map_flags
from orchestrator.kinds.memory.lazily import Later, can_wait
from orchestrator.kinds.memory.record import AddressSpace, PageRun, Vma
from orchestrator.kinds.task.numa import tell_mapping_policy
from orchestrator.tape.build import Tape

_PROT_WRITE = 2
_MAP_SHARED, _MAP_PRIVATE, _MAP_FIXED, _MAP_ANONYMOUS = 0x01, 0x02, 0x10, 0x20
_MAP_DROPPABLE = 0x08
_MAP_GROWSDOWN, _MAP_NORESERVE = 0x100, 0x4000
_MREMAP_MAYMOVE_FIXED = 3
_PR_SET_MEMORY_MERGE, _MADV_UNMERGEABLE = 67, 13
_MADV_DONTNEED, _MADV_GUARD_INSTALL, _MADV_POPULATE_WRITE = 4, 102, 23
_MADVICE = {"dc": 10, "wf": 18, "dd": 16, "hg": 14, "nh": 15, "mg": 12, "sr": 2, "rr": 1}
"""DONTFORK, WIPEONFORK, DONTDUMP, HUGEPAGE, NOHUGEPAGE, MERGEABLE, SEQUENTIAL, RANDOM."""
_PR_SET_VMA, _PR_SET_VMA_ANON_NAME = 0x53564D41, 0
_PR_SET_MM, _PR_SET_MM_MAP = 35, 14
_MM_MAP = struct.Struct("<12QIi")  # struct prctl_mm_map
assert _MM_MAP.size == 104
_IOVEC = struct.Struct("<QQ")
_IOV_MAX = 1024
_STEP = 1 << 20
_MLOCK_ONFAULT = 1
_SPECIAL = ("vvar", "vvar_vclock", "vdso")
_CANNOT_INHERIT = frozenset(("dc", "wf"))
_TOP = 0x7FFF_FFFF_F000
_LOWEST = 0x1_0000
_IO_URING = "io_uring"


class Span(NamedTuple):
    """A range of addresses."""

    start: int
    end: int


class Backings(NamedTuple):
    """How the process that maps gets at what is mapped."""

    image: int
    """Descriptor of the image."""
    pages_at: int
    """Offset of the page data in it."""
    file: Callable[[int], int]
    """Open file -> descriptor."""
    object: Callable[[int], int]
    """Shared memory object -> descriptor."""
    attach: Callable[[int, Vma, Tape], None]
    """Attach a System V segment."""
    others: Mapping[int, tuple[int, int]] = {}
    """The same two, ``image`` and ``pages_at``, of the other images that pages lie in, by their numbers."""

    def find(self, place: int) -> tuple[int, int]:
        """Return the descriptor and the file offset of a place."""
        number = number_of(place)
        if number and number not in self.others:
            raise ImageCorrupt(f"the image has pages in image {number} of its chain, which it does not name")
        image, pages_at = self.others[number] if number else (self.image, self.pages_at)
        return image, pages_at + offset_in(place)


class Inherited(NamedTuple):
    """What is in a process's memory when its tape begins."""

    vmas: Sequence[Vma]
    """Private mappings with their pages in place, as the parent has them; empty in a blank process."""
    special: dict[str, Span]
    """Where vvar and vdso lie now."""
    keep_out: Span
    """The arena, and room to park the vdso: never unmapped by this tape."""
    parking: int
    executable: int
    """The open file that /proc/self/exe names; -1 for the seed."""
    settings: AddressSpace | None
    """The mm settings it has."""


def rebuild_memory(
    tape: Tape,
    wanted: AddressSpace,
    have: Inherited,
    backings: Backings,
    later: list[PageRun] | None = None,
    missing: Later | None = None,
) -> None:
    """Unmap what is not wanted, map what is missing, and fill in pages that were not inherited.

    With ``later``, large runs that can be filled in when all is mapped are put there instead. With ``missing``,
    what may come when the process runs is left to that.
    """
    kept = shared_ranges(wanted.vmas, have.vmas)
    _move_special(tape, wanted, have)
    standing = [Span(vma.start, vma.end) for vma in wanted.vmas if vma.backing in _SPECIAL]
    _unmap_all_but(tape, [*kept, *standing, have.keep_out])
    for vma, before in side_by_side(wanted.vmas, have.vmas):
        if vma.backing not in (*_SPECIAL, "vsyscall", _IO_URING):
            _rebuild_vma(tape, vma, kept, before, backings, later if not wanted.lock_future else None, missing)
    rings = [vma for vma in wanted.vmas if vma.backing == _IO_URING]
    taken = [Span(vma.start, vma.end) for vma in wanted.vmas if vma.backing not in ("vsyscall", _IO_URING)]
    for vma in rings:
        taken.append(Span(vma.start, vma.end))
        # Nothing is parked any more: the kernel might choose that place.
        _map_where_the_kernel_chooses(tape, vma, [*taken, have.keep_out._replace(end=have.parking)], backings)
    if wanted.lock_future:
        tape.mlockall(wanted.lock_future)
    _set_mm(tape, wanted, have, backings)


def tell_merging(tape: Tape, wanted: AddressSpace) -> None:
    """Let the kernel merge equal pages (KSM) of all that is mapped and will be, but where the process took it back."""
    tape.prctl(_PR_SET_MEMORY_MERGE, 1, 0, 0, 0)
    for vma in wanted.vmas:
        if not vma.shared and vma.backing not in (*_SPECIAL, "vsyscall") and "mg" not in vma.flags:
            tape.madvise(vma.start, vma.end - vma.start, _MADV_UNMERGEABLE)


def shared_ranges(wanted: Sequence[Vma], have: Sequence[Vma]) -> list[Span]:
    """Return the ranges that both have mapped alike and in which at least one page is the same, ascending.

    Both lists ascend. Only private mappings count; shared ones are mapped anew at no cost.
    """
    spans = []
    for vma, near in side_by_side(wanted, have):
        for other in near if vma.runs else ():
            span = inheritable(vma, other)
            if span is not None and _share_a_page(vma.runs, other.runs, *span):
                spans.append(span)
    return spans


def side_by_side(vmas: Sequence[Vma], others: Sequence[Vma]) -> Iterator[tuple[Vma, Sequence[Vma]]]:
    """Yield each mapping with those of another list that lie in its range. Both lists ascend."""
    first = 0
    for vma in vmas:
        while first < len(others) and others[first].end <= vma.start:
            first += 1
        last = first
        while last < len(others) and others[last].start < vma.end:
            last += 1
        yield vma, others[first:last]


def inheritable(vma: Vma, other: Vma) -> Span | None:
    """Return the range of two mappings that a process which has the first can have got from one with the second."""
    start, end = max(vma.start, other.start), min(vma.end, other.end)
    if start >= end or vma.shared or _CANNOT_INHERIT & {*vma.flags} or not _alike(vma, other):
        return None
    return Span(start, end)


def _alike(a: Vma, b: Vma) -> bool:
    if b.shared or a.backing != b.backing or a.of != b.of or _CANNOT_INHERIT & {*b.flags}:
        return False
    if ("gd" in a.flags) != ("gd" in b.flags):
        return False
    if a.huge_bits != b.huge_bits:
        return False
    return a.backing == "anonymous" or a.start - a.offset == b.start - b.offset


def _share_a_page(a: Iterable[PageRun], b: Iterable[PageRun], start: int, end: int) -> bool:
    theirs = _by_place(run for run in b if run.end > start and run.start < end)
    return any(
        run.start < other.end and other.start < run.end for run in a for other in theirs.get(run.start - run.at, ())
    )


def _by_place(runs: Iterable[PageRun]) -> dict[int, list[PageRun]]:
    """Group runs by the distance between their address and their place: equal pages have equal distances."""
    groups: dict[int, list[PageRun]] = {}
    for run in runs:
        groups.setdefault(run.start - run.at, []).append(run)
    return groups


def _move_special(tape: Tape, wanted: AddressSpace, have: Inherited) -> None:
    """Move vvar and vdso to where the process had them, over a parking place, as old and new may overlap.

    What the process has not any more is unmapped.
    """
    targets = {vma.backing: Span(vma.start, vma.end) for vma in wanted.vmas if vma.backing in _SPECIAL}
    moves = [(name, have.special[name], target) for name, target in targets.items() if name in have.special]
    for name in have.special.keys() - targets.keys():
        tape.munmap(have.special[name].start, have.special[name].end - have.special[name].start)
    if all(now == target for _, now, target in moves):
        return
    parked = have.parking
    for _, now, _ in moves:
        if now.start != parked:
            size = now.end - now.start
            tape.mremap(now.start, size, size, _MREMAP_MAYMOVE_FIXED, parked)
        parked += now.end - now.start
    parked = have.parking
    for _, now, target in moves:
        size = now.end - now.start
        if target.end - target.start == size:
            tape.mremap(parked, size, size, _MREMAP_MAYMOVE_FIXED, target.start)
        parked += size


def _unmap_all_but(tape: Tape, keep: Iterable[Span]) -> None:
    at = 0x1000  # page 0 is nobody's
    for span in sorted(keep):
        if span.start > at:
            tape.munmap(at, span.start - at)
        at = max(at, span.end)
    if at < _TOP:
        tape.munmap(at, _TOP - at)


def _rebuild_vma(
    tape: Tape,
    vma: Vma,
    kept: Sequence[Span],
    before: Sequence[Vma],
    backings: Backings,
    later: list[PageRun] | None,
    missing: Later | None,
) -> None:
    inside = [span for span in kept if vma.start <= span.start and span.end <= vma.end]
    if vma.backing == "sysv":
        backings.attach(vma.of, vma, tape)
        return
    if vma.backing == AIO:
        rebuild_ring(tape, vma, backings.image, backings.pages_at)
        return
    fill = missing_runs(vma, inside, before)
    if missing is not None and not inside:  # where nothing is inherited, nothing is in the way
        fill = missing.take(vma, fill)
    if later is not None and can_wait(vma):
        later += [run for run in fill if run.length >= _STEP]
        fill = [run for run in fill if run.length < _STEP]
    writable = vma.prot | _PROT_WRITE if fill else vma.prot
    at = vma.start
    for span in [*inside, Span(vma.end, vma.end)]:
        if span.start > at:
            _map(tape, vma, at, span.start, writable, backings)
        at = span.end
    if vma.policy is not None:
        tell_mapping_policy(tape, vma.start, vma.end - vma.start, vma.policy)
    for span in inside:
        for start, end in _stale(vma, span, before):
            tape.madvise(start, end - start, _MADV_DONTNEED)
    if any(vma.prot != writable or other.prot != vma.prot for other in before if _overlap(other, inside)):
        tape.mprotect(vma.start, vma.end - vma.start, writable)
    fill_pages(tape, fill, backings)
    for start, end in vma.guards:
        tape.madvise(start, end - start, _MADV_GUARD_INSTALL)
    if writable != vma.prot:
        tape.mprotect(vma.start, vma.end - vma.start, vma.prot)
    for flag in vma.flags:
        if flag in _MADVICE:
            tape.madvise(vma.start, vma.end - vma.start, _MADVICE[flag])
    if vma.name:
        tape.prctl(_PR_SET_VMA, _PR_SET_VMA_ANON_NAME, vma.start, vma.end - vma.start, vma.name)
    if "lo" in vma.flags:
        tape.mlock2(vma.start, vma.end - vma.start, _MLOCK_ONFAULT if "lf" in vma.flags else 0)


def _overlap(vma: Vma, spans: Sequence[Span]) -> bool:
    return any(vma.start < span.end and span.start < vma.end for span in spans)


def _map(tape: Tape, vma: Vma, start: int, end: int, prot: int, backings: Backings) -> None:
    flags = _MAP_FIXED | (_MAP_SHARED if vma.shared else _MAP_DROPPABLE if "dp" in vma.flags else _MAP_PRIVATE)
    if "gd" in vma.flags:
        flags |= _MAP_GROWSDOWN
    if "nr" in vma.flags:
        flags |= _MAP_NORESERVE
    if vma.backing == "anonymous":
        tape.mmap(start, end - start, prot, flags | _MAP_ANONYMOUS | map_flags(vma.huge_bits), -1, 0)
        return
    fd = backings.file(vma.of) if vma.backing in ("file", _IO_URING) else backings.object(vma.of)
    tape.mmap(start, end - start, prot, flags, fd, vma.offset + start - vma.start)


def missing_runs(vma: Vma, kept: Sequence[Span], before: Sequence[Vma]) -> list[PageRun]:
    """Return the page runs of a mapping that it did not inherit."""
    if not kept:
        return list(vma.runs)
    theirs = _by_place(run for other in before if _overlap(other, kept) for run in other.runs)
    missing: list[PageRun] = []
    for run in vma.runs:
        have = [
            Span(max(run.start, other.start, span.start), min(run.end, other.end, span.end))
            for other in theirs.get(run.start - run.at, ())
            for span in kept
        ]
        at = run.start
        for span in sorted(span for span in have if span.start < span.end):
            if span.start > at:
                missing.append(PageRun(at, span.start - at, run.at + at - run.start))
            at = max(at, span.end)
        if at < run.end:
            missing.append(PageRun(at, run.end - at, run.at + at - run.start))
    return missing


def _stale(vma: Vma, span: Span, before: Sequence[Vma]) -> list[Span]:
    """Return the inherited pages of a kept range that the process does not have at all."""
    covered = sorted(Span(run.start, run.end) for run in vma.runs)
    stale = []
    for run in (run for other in before if _overlap(other, (span,)) for run in other.runs):
        at, end = max(run.start, span.start), min(run.end, span.end)
        for own in covered:
            if own.end <= at:
                continue
            if own.start >= end:
                break
            if own.start > at:
                stale.append(Span(at, own.start))
            at = max(at, own.end)
        if at < end:
            stale.append(Span(at, end))
    return stale


def _map_where_the_kernel_chooses(tape: Tape, vma: Vma, taken: Sequence[Span], backings: Backings) -> None:
    """Map a ring of io_uring. Nobody may say where it shall be, so it is left the only place that there is."""
    gaps = []
    at = _LOWEST
    for span in sorted(taken):
        if span.start > at:
            gaps.append(Span(at, span.start))
        at = max(at, span.end)
    if at < _TOP:
        gaps.append(Span(at, _TOP))
    for gap in gaps:
        flags = _MAP_PRIVATE | _MAP_FIXED | _MAP_ANONYMOUS | _MAP_NORESERVE
        tape.mmap(gap.start, gap.end - gap.start, 0, flags, -1, 0)
    size = vma.end - vma.start
    tape.mmap(0, size, vma.prot, _MAP_SHARED, backings.file(vma.of), vma.offset)
    for gap in gaps:
        tape.munmap(gap.start, gap.end - gap.start)
    for flag in vma.flags:
        if flag in _MADVICE:
            tape.madvise(vma.start, size, _MADVICE[flag])


def _place(run: PageRun) -> int:
    return run.at


def fill_pages(tape: Tape, runs: Sequence[PageRun], backings: Backings) -> None:
    """Read pages from where they lie; runs that lie one behind the other in an image take one call."""
    if backings.others:  # then neighbours in memory need not be neighbours in a file
        runs = sorted(runs, key=_place)
    vector: list[bytes] = []
    begin = end = 0

    def flush() -> None:
        nonlocal vector
        if vector:
            image, offset = backings.find(begin)
            tape.preadv(image, b"".join(vector), len(vector), offset, 0)
        vector = []

    for run in runs:
        for done in range(0, run.length, _STEP):
            part = min(_STEP, run.length - done)
            if part >= _STEP // 2:  # populating first spares a fault a page; see docs/architecture.md
                flush()
                tape.madvise(run.start + done, part, _MADV_POPULATE_WRITE, may_fail=True)
            if vector and (end != run.at + done or len(vector) == _IOV_MAX):
                flush()
            if not vector:
                begin = run.at + done
            vector.append(_IOVEC.pack(run.start + done, part))
            end = run.at + done + part
    flush()


def _set_mm(tape: Tape, wanted: AddressSpace, have: Inherited, backings: Backings) -> None:
    settings = _settings(wanted)
    same_file = wanted.executable == have.executable
    if same_file and have.settings is not None and settings == _settings(have.settings):
        return
    auxv = tape.block(wanted.auxv)
    exe = -1 if same_file else backings.file(wanted.executable)
    block = tape.block(_MM_MAP.pack(*settings[0], 0, len(wanted.auxv), exe))
    tape.point(block, 11 * 8, auxv)
    tape.prctl(_PR_SET_MM, _PR_SET_MM_MAP, block, _MM_MAP.size, 0)


def _settings(space: AddressSpace) -> tuple[tuple[int, ...], bytes]:
    return (
        space.start_code, space.end_code, space.start_data, space.end_data, space.start_brk, space.brk,
        space.start_stack, space.arg_start, space.arg_end, space.env_start, space.env_end,
    ), space.auxv  # fmt: skip
