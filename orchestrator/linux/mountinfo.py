"""/proc/PID/mountinfo: the mounts of a mount namespace, below the reader's view of its root."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from orchestrator.linux.procfs import read_file


class Mount(NamedTuple):
    """One mount. ``fields`` are the optional ones, e.g. "shared:1", "master:2", "unbindable".

    Paths that are no UTF-8 keep their bytes as surrogates (os.fsencode brings them back).
    """

    id: int
    parent: int
    major: int
    minor: int
    root: str
    mountpoint: str
    options: str
    fields: tuple[str, ...]
    fstype: str
    source: str
    super_options: str


_OCTAL = re.compile(rb"\\([0-3][0-7][0-7])")


def _text(raw: bytes) -> str:
    if b"\\" in raw:
        raw = _OCTAL.sub(lambda found: bytes([int(found[1], 8)]), raw)
    return os.fsdecode(raw)


def parse_mountinfo(raw: bytes) -> list[Mount]:
    """Parse a mountinfo file, in the kernel's order."""
    mounts = []
    for line in raw.split(b"\n"):
        if not line:
            continue
        # A space is the only separator and may come twice: the source can be empty.
        words = line.split(b" ")
        hyphen = words.index(b"-", 6)
        major, minor = words[2].split(b":")
        mounts.append(
            Mount(
                int(words[0]),
                int(words[1]),
                int(major),
                int(minor),
                _text(words[3]),
                _text(words[4]),
                _text(words[5]),
                tuple([_text(word) for word in words[6:hyphen]]),
                _text(words[hyphen + 1]),
                _text(words[hyphen + 2]),
                _text(b" ".join(words[hyphen + 3 :])),
            )
        )
    return mounts


def read_mountinfo(pid: int | str = "self") -> list[Mount]:
    """Read the mounts that a process sees."""
    return parse_mountinfo(read_file(f"/proc/{pid}/mountinfo"))


def cgroup2_mount() -> str | None:
    """Find where cgroup v2 is mounted; the widest view if it is mounted more than once."""
    return _shortest_root([mount for mount in read_mountinfo() if mount.fstype == "cgroup2"])


def cgroup1_mount(controller: str) -> str | None:
    """Find where a cgroup v1 controller ("freezer", or "name=systemd") is mounted."""
    return _shortest_root(
        [
            mount
            for mount in read_mountinfo()
            if mount.fstype == "cgroup" and controller in mount.super_options.split(",")
        ]
    )


def _shortest_root(mounts: list[Mount]) -> str | None:
    return min(mounts, key=lambda mount: len(mount.root)).mountpoint if mounts else None
