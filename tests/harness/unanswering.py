"""A file system that does not answer: whoever looks into it waits until it is gone.

As a program, ``unanswering.py DIRECTORY COMMAND ...``: run a command in a mount namespace with one over a directory.
Nobody serves it, not even the first request of the kernel's; it is gone with the command.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from orchestrator.linux.mount import MS_PRIVATE, MS_REC, mount
from orchestrator.linux.nsfs import CLONE_NEWNS, unshare


def under_unanswering(directory: Path) -> list[str]:
    """Return what to start a command by, so that the file system is there for it."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("no FUSE here")
    return [sys.executable, __file__, str(directory)]


if __name__ == "__main__":
    unshare(CLONE_NEWNS)
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    served = os.open("/dev/fuse", os.O_RDWR)
    os.set_inheritable(served, True)
    mount("nobody", sys.argv[1], "fuse", 0, f"fd={served},rootmode=40000,user_id=0,group_id=0")
    os.execv(sys.argv[2], sys.argv[2:])
