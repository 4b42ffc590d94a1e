"""Timers that are read. See timerfd_create(2)."""

from __future__ import annotations

import ctypes
import struct
import time

from orchestrator.kinds.files.kind import O_CLOEXEC, Depot, FdView, FileKind, OpenFile, Settling, anybody
from orchestrator.kinds.files.reopening import set_status
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.linux.call import machine, syscall
from orchestrator.linux.proc_fd import read_fdinfo
from orchestrator.linux.syscalls import numbers

_TFD_TIMER_ABSTIME = 1
_TFD_TIMER_CANCEL_ON_SET = 2
_TFD_IOC_SET_TICKS = 0x40085400  # _IOW('T', 0, __u64)
_CLOCK_REALTIME_ALARM = 8
_WALL_CLOCKS = (time.CLOCK_REALTIME, _CLOCK_REALTIME_ALARM)
_itimerspec = struct.Struct("=qqqq")
assert _itimerspec.size == 32
_GIGA = 10**9
_NR_timerfd_gettime = numbers(machine())["timerfd_gettime"]


class TimerFd(Record, frozen=True, tag="timerfd"):
    """A timer. All times are in nanoseconds."""

    clock: int
    ticks: int
    """Expirations not yet read."""
    flags: int
    """Those of the last timerfd_settime."""
    left: int
    """Until the next expiration; 0 for a timer that is not armed."""
    interval: int
    at: int = 0
    """When it expires, on the wall clock, for a timer that was set to a time of day; else 0."""


def _recognise(view: FdView) -> bool:
    return view.link == "anon_inode:[timerfd]"


def _capture(view: FdView, scope: Scope) -> TimerFd:  # noqa: ARG001 - the signature of all kinds
    # A periodic timer that has expired stands still until it is read or asked; ask before reading the ticks.
    interval, left = timerfd_gettime(view.local)
    info = read_fdinfo(view.pid, view.fd)
    ticks = int(info.get("ticks") or "")
    if interval and ticks and not left:
        left = 1  # it expired once more just now; one that is not armed has no ticks
    clock, flags = int(info.get("clockid") or ""), int(info.get("settime flags") or "", 8)
    at = 0
    if left and flags & _TFD_TIMER_ABSTIME and clock in _WALL_CLOCKS:
        at = time.clock_gettime_ns(time.CLOCK_REALTIME) + left
    return TimerFd(clock, ticks, flags, left, interval, at)


def timerfd_gettime(fd: int) -> tuple[int, int]:
    """Return interval and time left of a timer, in nanoseconds."""
    buffer = ctypes.create_string_buffer(_itimerspec.size)
    syscall(_NR_timerfd_gettime, fd, ctypes.addressof(buffer))
    interval, interval_ns, left, left_ns = _itimerspec.unpack(buffer.raw)
    return interval * _GIGA + interval_ns, left * _GIGA + left_ns


def _rebuild(file: OpenFile, depot: Depot) -> None:
    depot.tape.timerfd_create(file.body.clock, O_CLOEXEC)
    set_status(depot.tape, 0, file.flags)
    depot.keep(0, depot.slot(file.id))


def _settle(file: OpenFile, settling: Settling) -> None:
    """Arm the timer late, so that it counts little of the restore itself."""
    body: TimerFd = file.body
    if not settling.first:
        return
    tape, fd = settling.tape, settling.fd
    if body.left:
        flags = body.flags & (_TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET) if body.at else 0
        first, interval = body.at or body.left, body.interval
        value = _itimerspec.pack(interval // _GIGA, interval % _GIGA, first // _GIGA, first % _GIGA)
        tape.timerfd_settime(fd, flags, value, 0)
    if body.ticks:
        # Needs CONFIG_CHECKPOINT_RESTORE, as all of this does (since Linux 3.17).
        tape.ioctl(fd, _TFD_IOC_SET_TICKS, body.ticks.to_bytes(8, "little"))


KIND = FileKind("timerfd", TimerFd, _recognise, _capture, _rebuild, _settle, may_open=anybody, links="anon_inode:")
