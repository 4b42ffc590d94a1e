"""What the kinds read from the lines of fdinfo."""

from __future__ import annotations

import fcntl
import os

import pytest

from orchestrator.kinds.files.epoll import Target, parse_target
from orchestrator.kinds.files.inotify import WatchLine, parse_watch
from orchestrator.kinds.files.locks import LockLine, parse_lock


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1: FLOCK  ADVISORY  WRITE 1234 fe:00:77 0 EOF", LockLine("FLOCK", fcntl.F_WRLCK, 0, 0, 1234)),
        ("12: POSIX  ADVISORY  READ  1234 fe:00:77 10 14", LockLine("POSIX", fcntl.F_RDLCK, 10, 5, 1234)),
        ("3: OFDLCK ADVISORY  WRITE -1 00:1b:77 7 EOF", LockLine("OFDLCK", fcntl.F_WRLCK, 7, 0, -1)),
        ("4: LEASE  ACTIVE    WRITE 1234 fe:00:77 0 EOF", LockLine("LEASE", fcntl.F_WRLCK, 0, 0, 1234)),
    ],
)
def test_locks(text: str, expected: LockLine) -> None:
    assert parse_lock(text) == expected


def test_epoll_targets() -> None:
    text = "4 events: c0000019 data:     7f9b00000008  pos:0 ino:5c872 sdev:f"
    assert parse_target(text) == Target(4, 0xC0000019, 0x7F9B00000008, 0x5C872)


def test_inotify_watches() -> None:
    text = "wd:1f ino:20c03c sdev:fe00001 mask:80000fff ignored_mask:0 fhandle-type:81 f_handle:3cc020003423c232"
    handle = bytes.fromhex("3cc020003423c232")
    assert parse_watch(text) == WatchLine(31, 0x20C03C, os.makedev(0xFE, 1), 0x80000FFF, 0x81, handle)
    assert parse_watch("wd:1 ino:1 sdev:15 mask:1 ignored_mask:0").handle == b""
