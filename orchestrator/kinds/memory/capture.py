"""Look at the memory of a held process: its mappings, and which pages must go into the image."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from mmap import PROT_EXEC
from typing import NamedTuple, Self

import msgspec

from orchestrator.ids import HostPid, ObjectId
from orchestrator.image.extents import PageLayout
from orchestrator.kinds.files.io_uring import IO_URING, LINK
from orchestrator.kinds.memory import huge
from orchestrator.kinds.memory.aio import AIO, is_ring, note_ring
from orchestrator.kinds.memory.record import PageRun, Vma
from orchestrator.kinds.memory.sharing import SharedRun, Sharing, shared_parts
from orchestrator.kinds.memory.tracked import UNWRITTEN, TrackedMemory
from orchestrator.kinds.scope import Scope
from orchestrator.kinds.task.numa import DEFAULT, MemoryPolicy, read_policies, several_nodes
from orchestrator.linux import pagemap
from orchestrator.linux.proc_maps import SPECIAL, FlagsAhead, MapLine, VmFlags, is_private, read_smaps_flags

PAGE = 4096
_NEAR = 128 * PAGE
_MCL_FUTURE, _MCL_ONFAULT = 2, 4
_RING = LINK.encode()
_SOCKET = b"socket:["
_NAMED_SHARED = b"[anon_shmem:"
_NAMED = (b"[anon:", _NAMED_SHARED)
_REMADE_FLAGS = frozenset(("gd", "lo", "lf", "dc", "wf", "dd", "hg", "nh", "mg", "nr", "sr", "rr", "dp", "ht"))
REFUSED_FLAGS = {
    "um": "registered with userfaultfd (missing pages)",
    "uw": "registered with userfaultfd (write protection)",
    "io": "memory of a device",
    "pf": "memory of a device",
    "ss": "a shadow stack",
    "sl": "memory sealed with mseal",
}


class Mappers(NamedTuple):
    """How mapped files and shared memory become objects of the image."""

    file: Callable[[HostPid, MapLine, bool], ObjectId]
    """(process, mapping, writable) -> an open file."""
    shared: Callable[[HostPid, MapLine], ObjectId]
    """(process, mapping) -> a shared memory object."""
    sysv: Callable[[HostPid, MapLine], ObjectId]
    """(process, mapping) -> a System V segment."""
    ring: Callable[[HostPid, MapLine, Vma], None] = lambda _pid, _line, _vma: None
    """Ties the mapping of a socket's ring to its socket, when all tables are known."""


class Range(NamedTuple):
    """Addresses."""

    start: int
    end: int


class CapturedMemory:
    """What the capture of one address space leaves for its relatives' and for the writers of pages."""

    def __init__(self, parent: CapturedMemory | None, *, has_children: bool) -> None:
        self.ancestors: list[list[SharedRun]] = [parent.shared, *parent.ancestors] if parent else []
        """What the parent, its parent, and so on share."""
        self.has_children = has_children
        self.lines: list[MapLine] = []
        """The mappings that can be saved, as the kernel lists them."""
        self.vmas: list[Vma] = []
        self.own: list[PageRun] = []
        """The runs that this process itself must write."""
        self.unreadable: list[PageRun] = []
        """Those of them that it has no permission to read."""
        self.shared: list[SharedRun] = []
        """Those pages, ascending, that somebody else maps as well; for children."""
        self.lock_future = 0
        """The mlockall(2) flags for mappings to come."""


class Pages:
    """Which pages of a process have contents of their own, and in which page frames. Asked for ascending addresses."""

    def __init__(self, pid: HostPid) -> None:
        self._pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        self._blocks: list[tuple[int, int, array[int]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._pagemap)

    def read(self, regions: Iterable[pagemap.Region]) -> None:
        """Read the entries of regions, those close to each other at once."""
        spans = reversed(pagemap.spans(regions, _NEAR))
        self._blocks = [(start, end, pagemap.read_entries(self._pagemap, start, end)) for start, end in spans]

    def entries(self, start: int, end: int) -> array[int]:
        """Return the raw pagemap entries of [start, end), which is in a region that was read."""
        while self._blocks[-1][1] <= start:
            self._blocks.pop()
        first, _, entries = self._blocks[-1]
        return entries[(start - first) // PAGE : (end - first) // PAGE]

    def scan(self, start: int, end: int) -> list[pagemap.Region]:
        """Return the ranges with contents of their own: anonymous or changed, in memory or swapped out; and guards."""
        return pagemap.scan(
            self._pagemap,
            start,
            end,
            category_inverted=pagemap.PAGE_IS_FILE | pagemap.PAGE_IS_PFNZERO,
            category_mask=pagemap.PAGE_IS_FILE | pagemap.PAGE_IS_PFNZERO,
            category_anyof_mask=pagemap.PAGE_IS_PRESENT | pagemap.PAGE_IS_SWAPPED | pagemap.PAGE_IS_GUARD,
            return_mask=pagemap.PAGE_IS_GUARD,
        )

    def scan_tracked(self, start: int, end: int) -> list[pagemap.Region]:
        """Return such ranges of mappings that are registered for noting writes, with PAGE_IS_WRITTEN where it applies.

        Cheaper than a scan that looks for files.
        """
        return pagemap.scan(
            self._pagemap,
            start,
            end,
            category_inverted=pagemap.PAGE_IS_PFNZERO,
            category_mask=pagemap.PAGE_IS_WPALLOWED | pagemap.PAGE_IS_PFNZERO,
            category_anyof_mask=pagemap.PAGE_IS_PRESENT | pagemap.PAGE_IS_SWAPPED | pagemap.PAGE_IS_GUARD,
            return_mask=pagemap.PAGE_IS_WRITTEN | pagemap.PAGE_IS_GUARD,
        )

    def arm(self, start: int, end: int) -> None:
        """Have writes to such ranges noted from here on; not to guards, as it would make others of them."""
        pagemap.scan(
            self._pagemap,
            start,
            end,
            category_inverted=pagemap.PAGE_IS_PFNZERO | pagemap.PAGE_IS_GUARD,
            category_mask=pagemap.PAGE_IS_WPALLOWED | pagemap.PAGE_IS_PFNZERO | pagemap.PAGE_IS_GUARD,
            category_anyof_mask=pagemap.PAGE_IS_PRESENT | pagemap.PAGE_IS_SWAPPED,
            return_mask=pagemap.PAGE_IS_WRITTEN,
            flags=pagemap.PM_SCAN_WP_MATCHING,
        )


def capture_memory(
    pid: HostPid,
    scope: Scope,
    mappers: Mappers,
    placer: Placer,
    parent: CapturedMemory | None,
    ours: Range,
    policy: MemoryPolicy = DEFAULT,
    *,
    has_children: bool = True,
    tracked: TrackedMemory | None = None,
    ahead: FlagsAhead | None = None,
) -> CapturedMemory:
    """Describe the mappings of a held process and place its pages.

    ``ours`` is where our own workspace lies, ``policy`` what the process has where a mapping has none of its own.
    ``tracked`` knows which pages were not written since another image has them. ``ahead`` reads the mappings.
    """
    memory = CapturedMemory(parent, has_children=has_children)
    policies = read_policies(pid) if several_nodes() else {}
    lines = []
    for line, flags in read_smaps_flags(pid) if ahead is None else ahead.result():
        if _overlap(line, ours):
            memory.lock_future = _lock_future(flags)
            lines += [(part, flags) for part in without(ours, line)]
            continue
        if tracked is not None:
            flags = tracked.without_ours(line, flags)
        refused = [REFUSED_FLAGS[flag] for flag in flags if flag in REFUSED_FLAGS]
        if is_ring(line):
            note_ring(scope, pid, line)
        if line.path in SPECIAL:
            lines.append((line, flags))
        elif line.key and line.prot != PROT_EXEC:  # the kernel itself gives a key to what may only be executed
            scope.unsupported(pid, _what(line), f"its protection key {line.key} cannot be set again")
        elif refused:
            scope.unsupported(pid, _what(line), f"{refused[0]} cannot be saved")
        else:
            lines.append((line, flags))
    memory.lines = [line for line, _ in lines]
    with Pages(pid) as pages:
        regions = _regions(pages, lines) if tracked is None else tracked.regions(pages, lines)
        if placer.compares:
            pages.read(regions)
        regions.reverse()
        for line, flags in lines:
            bare = not policies and not (regions and regions[-1][0] < line.end)
            if bare and (known := placer.bare.get((line, flags))):
                memory.vmas.append(known)
                continue
            vma = _capture_vma(pid, line, flags, mappers, memory, pages, regions, placer, tracked)
            name, own = _given_name(line), policies.get(line.start, policy)
            if name or own != policy:
                vma = msgspec.structs.replace(vma, name=name, policy=own if own != policy else None)
            elif bare and not line.shared and (not line.inode or is_file(line)):
                placer.bare[line, flags] = vma
            memory.vmas.append(vma)
            if line.path.startswith(_SOCKET):
                scope.finishers.append(partial(mappers.ring, pid, line, vma))
    return memory


def _overlap(line: MapLine, ours: Range) -> bool:
    return line.start < ours.end and ours.start < line.end


def without(ours: Range, line: MapLine) -> list[MapLine]:
    """Return what a mapping was before the kernel joined our own to it."""
    if not _overlap(line, ours):
        return [line]
    parts = [line._replace(end=min(line.end, ours.start)), line._replace(start=max(line.start, ours.end))]
    return [part for part in parts if part.start < part.end]


def _lock_future(flags: VmFlags) -> int:
    """Say from our own, recent mapping what mlockall(2) asked of mappings to come; the kernel shows it nowhere else."""
    if "lo" not in flags:
        return 0
    return _MCL_FUTURE | (_MCL_ONFAULT if "lf" in flags else 0)


def _regions(pages: Pages, lines: list[tuple[MapLine, VmFlags]]) -> list[pagemap.Region]:
    """Scan once over the whole address space (a system call a mapping is most of the cost in small processes)."""
    private = [line for line, _ in lines if is_private(line)]
    return pages.scan(private[0].start, private[-1].end) if private else []


def _capture_vma(
    pid: HostPid,
    line: MapLine,
    flags: VmFlags,
    mappers: Mappers,
    memory: CapturedMemory,
    pages: Pages,
    regions: list[pagemap.Region],
    placer: Placer,
    tracked: TrackedMemory | None,
) -> Vma:
    kept = tuple(flag for flag in flags if flag in _REMADE_FLAGS)
    if line.path in SPECIAL:
        return Vma(line.start, line.end, line.prot, line.shared, line.path[1:-1].decode())
    if is_ring(line):
        return Vma(line.start, line.end, line.prot, True, AIO, 0, ObjectId(-1), kept)
    backing, of = "anonymous", ObjectId(-1)
    bits = 0
    if line.path == huge.ANONYMOUS and not line.shared:
        bits = huge.huge_bits(f"/proc/{pid}/map_files/{line.start:x}-{line.end:x}")
    elif line.shared and _is_shared_memory(line):
        backing, of = "object", mappers.shared(pid, line)
    elif line.path.startswith(b"/SYSV") and line.deleted:
        backing, of = "sysv", mappers.sysv(pid, line)
    elif line.path.startswith(_SOCKET):
        backing = "file"  # known when all tables are
    elif line.inode:
        kind = IO_URING if line.path == _RING else "file"
        backing, of = kind, mappers.file(pid, line, line.shared and ("mw" in flags))
    if line.shared:
        return Vma(line.start, line.end, line.prot, True, backing, line.offset, of, kept)
    runs: list[PageRun] = []
    guards: list[tuple[int, int]] = []
    while regions and regions[-1][0] < line.end:
        start, end, categories = regions.pop()
        if end > line.end:
            regions.append((line.end, end, categories))
            end = line.end
        start = max(start, line.start)
        if start >= end:
            continue
        if categories & pagemap.PAGE_IS_GUARD:
            guards.append((start, end))
        elif "dp" not in flags:  # what the kernel may drop at any time is not worth a place; secrets lie there
            known = tracked.known_in(start, end) if tracked is not None and categories & UNWRITTEN else ()
            runs += placer.place(memory, pages, start, end, readable=bool(line.prot & 1), known=known)
    return Vma(
        line.start,
        line.end,
        line.prot,
        False,
        backing,
        line.offset if of >= 0 else 0,
        of,
        kept,
        tuple(runs),
        tuple(guards),
        bits,
    )


def _given_name(line: MapLine) -> str:
    """Return what PR_SET_VMA_ANON_NAME called a mapping."""
    for prefix in _NAMED:
        if line.path.startswith(prefix):
            return line.path[len(prefix) : -1].decode("latin-1")
    return ""


def is_file(line: MapLine) -> bool:
    """Whether a mapping is of a file, and not of memory, a ring or anything else that has an inode."""
    others = is_ring(line) or line.path in (_RING, huge.ANONYMOUS) or line.path.startswith((_SOCKET, b"/SYSV"))
    return bool(line.inode) and not others and not _is_shared_memory(line)


def _is_shared_memory(line: MapLine) -> bool:
    if line.path.startswith(_NAMED_SHARED):
        return line.inode != 0
    nameless = line.path in (b"/dev/zero", huge.ANONYMOUS) or line.path.startswith(b"/memfd:")
    return line.deleted and nameless and line.inode != 0


def _what(line: MapLine) -> str:
    name = os.fsdecode(line.path)
    return f"memory {line.start:#x}-{line.end:#x}" + (f" ({name})" if name else "")


class Placer:
    """Gives every run of pages its place in the image: a new one, or the one that the same pages have already."""

    def __init__(self, layout: PageLayout, *, alone: bool) -> None:
        """``alone``: there is but one address space."""
        self.bare: dict[tuple[MapLine, VmFlags], Vma] = {}
        """Private mappings without pages of their own: processes that were forked have them alike."""
        self._layout = layout
        self._sharing = None if alone or not pagemap.shows_frames() else Sharing()

    @property
    def compares(self) -> bool:
        """Whether it asks for page frames."""
        return self._sharing is not None

    def place(
        self,
        memory: CapturedMemory,
        pages: Pages,
        start: int,
        end: int,
        *,
        readable: bool,
        known: Sequence[PageRun] = (),
    ) -> list[PageRun]:
        """Place [start, end), splitting it where sharing begins and ends.

        ``known``: what of it another image has.
        """
        if self._sharing is None:
            return self._unshared(memory, start, end, readable, known)
        entries = pages.entries(start, end)
        shared = list(shared_parts(entries))
        runs: list[PageRun] = []
        first_here: set[PageRun] = set()
        fresh = start

        def add_unshared(until: int) -> None:
            if fresh < until:
                parts = self._unshared(memory, fresh, until, readable, known)
                runs.extend(parts)
                first_here.update(parts)

        for first, last in shared:
            base = start + first * PAGE
            for found in self._sharing.find(memory.ancestors, base, entries[first:last]):
                if found.at < 0:
                    continue
                low, high = base + found.first * PAGE, base + found.last * PAGE
                add_unshared(low)
                runs.append(PageRun(low, high - low, found.at))
                fresh = high
        add_unshared(end)
        if shared and (memory.has_children or memory.ancestors):
            self._remember(memory, start, entries, shared, runs, first_here)
        return runs

    def _unshared(
        self, memory: CapturedMemory, start: int, end: int, readable: bool, known: Sequence[PageRun]
    ) -> list[PageRun]:
        """Place pages that no relative has: where another image has them, or anew."""
        if not known:
            return [self._new(memory, start, end, readable)]
        if known[0].start == start and known[0].length == end - start:  # mostly
            return [known[0]]
        runs: list[PageRun] = []
        for run in known:
            low, high = max(run.start, start), min(run.start + run.length, end)
            if low >= high:
                continue
            if start < low:
                runs.append(self._new(memory, start, low, readable))
            runs.append(run if high - low == run.length else PageRun(low, high - low, run.at + low - run.start))
            start = high
        if start < end:
            runs.append(self._new(memory, start, end, readable))
        return runs

    def _new(self, memory: CapturedMemory, start: int, end: int, readable: bool) -> PageRun:
        run = PageRun(start, end - start, self._layout.place(end - start))
        memory.own.append(run)
        if not readable:
            memory.unreadable.append(run)
        return run

    def _remember(
        self,
        memory: CapturedMemory,
        start: int,
        entries: array[int],
        shared: list[tuple[int, int]],
        runs: list[PageRun],
        new: set[PageRun],
    ) -> None:
        """Note where the shared parts of [start, end) are now: for children, and for siblings where they are new."""
        assert self._sharing is not None
        place = 0
        for first, last in shared:
            low, end = start + first * PAGE, start + last * PAGE
            while low < end:
                while runs[place].end <= low:
                    place += 1
                run = runs[place]
                high = min(end, run.end)
                for_siblings = memory.ancestors and run in new
                if memory.has_children or for_siblings:
                    part = entries[(low - start) // PAGE : (high - start) // PAGE]
                    known = SharedRun(low, high, run.at + low - run.start, part)
                    memory.shared.append(known)
                    if for_siblings:
                        self._sharing.remember(known)
                low = high
