"""Probes of what orch does to memory: finding pages, following writes, laying an address space out."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct

from orchestrator.doctor.probe import Probe, attempt_in_child, bystander
from orchestrator.linux import pagemap, userfaultfd
from orchestrator.linux.call import machine
from orchestrator.linux.proc_stat import read_stat
from orchestrator.linux.process_vm import IOVEC, read_memory
from orchestrator.linux.syscalls import numbers

_PR_SET_MM, _PR_SET_MM_MAP = 35, 14
_UFFDIO_API = 0xC018AA3F
_UFFD_API = 0xAA
_UFFD_FEATURE_WP_UNPOPULATED = 1 << 13
_UFFD_FEATURE_WP_ASYNC = 1 << 15
_MFD_CLOEXEC, _MFD_EXEC = 0x1, 0x10

_libc = ctypes.CDLL(None, use_errno=True)
_libc.sbrk.restype = ctypes.c_void_p


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _pagemap_scan() -> None:
    page = mmap.mmap(-1, mmap.PAGESIZE)
    page[0] = 1
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        present = pagemap.PAGE_IS_PRESENT
        found = pagemap.scan(fd, address, address + mmap.PAGESIZE, category_mask=present, return_mask=present)
    finally:
        os.close(fd)
    if len(found) != 1:
        raise LookupError("it does not find a page that is there")


def _page_frames() -> None:
    page = mmap.mmap(-1, mmap.PAGESIZE)
    page[0] = 1
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    with open("/proc/self/pagemap", "rb", buffering=0) as entries:
        entries.seek(address // mmap.PAGESIZE * 8)
        (entry,) = struct.unpack("=Q", entries.read(8))
    if entry & pagemap.PFN_MASK == 0:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def _write_tracking() -> None:
    fd = _check(_libc.syscall(ctypes.c_long(numbers(machine())["userfaultfd"]), os.O_CLOEXEC))
    try:
        features = _UFFD_FEATURE_WP_ASYNC | _UFFD_FEATURE_WP_UNPOPULATED
        fcntl.ioctl(fd, _UFFDIO_API, struct.pack("=QQQ", _UFFD_API, features, 0))
    finally:
        os.close(fd)


def _pages_on_demand() -> None:
    fd = _check(_libc.syscall(ctypes.c_long(numbers(machine())["userfaultfd"]), os.O_CLOEXEC))
    try:
        userfaultfd.enable(fd, userfaultfd.ALL_EVENTS)
    finally:
        os.close(fd)


def _set_mm_map() -> None:
    stat = read_stat("self")
    brk = _libc.sbrk(0)
    fields = (
        stat.start_code,
        stat.end_code,
        stat.start_data,
        stat.end_data,
        stat.start_brk,
        brk,
        stat.start_stack,
        stat.arg_start,
        stat.arg_end,
        stat.env_start,
        stat.env_end,
    )
    block = struct.pack("=11QQII", *fields, 0, 0, 0xFFFFFFFF)

    def attempt() -> None:
        _check(_libc.prctl(_PR_SET_MM, _PR_SET_MM_MAP, block, ctypes.c_ulong(len(block)), ctypes.c_ulong(0)))

    attempt_in_child(attempt)


def _map_files() -> None:
    with bystander() as pid:
        directory = f"/proc/{pid}/map_files"
        os.stat(f"{directory}/{os.listdir(directory)[0]}")


def _read_memory() -> None:
    source = ctypes.create_string_buffer(b"here")
    with bystander() as pid:
        target = ctypes.create_string_buffer(4)
        _check(read_memory(pid, ctypes.addressof(target), 4, IOVEC.pack(ctypes.addressof(source), 4)))
        if target.raw != b"here":
            raise LookupError("it reads something else than what is there")


def _executable_memfd() -> None:
    # Kernels before 6.3 do not know MFD_EXEC, and need not be asked for it.
    try:
        fd = os.memfd_create("orch-doctor", _MFD_CLOEXEC | _MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fd = os.memfd_create("orch-doctor", _MFD_CLOEXEC)
    try:
        if os.fstat(fd).st_mode & 0o111 == 0:
            raise PermissionError(errno.EACCES, "vm.memfd_noexec forbids it")
    finally:
        os.close(fd)


def _populate_write() -> None:
    with mmap.mmap(-1, mmap.PAGESIZE) as page:
        page.madvise(23)  # MADV_POPULATE_WRITE


PROBES = (
    Probe("PAGEMAP_SCAN", _pagemap_scan, "pages that hold something cannot be found", essential=True),
    Probe("page frame numbers", _page_frames, "pages shared by copy-on-write are stored once for each process"),
    Probe("userfaultfd WP_ASYNC", _write_tracking, "writes cannot be followed: no incremental checkpoints"),
    Probe("userfaultfd events", _pages_on_demand, "no restore on demand (--lazy)"),
    Probe("process_vm_readv", _read_memory, "memory cannot be read from outside", essential=True),
    Probe("/proc/PID/map_files", _map_files, "deleted and shared anonymous mappings cannot be saved"),
    Probe(
        "PR_SET_MM_MAP",
        _set_mm_map,
        "the heap's bounds, the arguments and /proc/PID/exe are not restored",
        essential=True,
    ),
    Probe("executable memfd", _executable_memfd, "the first process of a restore cannot be started", essential=True),
    Probe("MADV_POPULATE_WRITE", _populate_write, "memory is restored more slowly"),
)
