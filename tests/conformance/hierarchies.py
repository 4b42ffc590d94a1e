"""The cgroup hierarchies that the suite makes for its tests, by its own scripts; what tests leave in them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

from conformance.checkout import Checkout
from harness.cgroups import unified
from orchestrator.linux.cgroup1 import hierarchy_root, own_places
from orchestrator.linux.cgroupfs import walk

SECONDS = 60
LEFT_IN_VERSION_2 = ("zdtmtst", "subcg00")
"""What tests make there, where jobs of others come and go, too."""


@contextlib.contextmanager
def suite_hierarchies(checkout: Checkout) -> Iterator[None]:
    """Have the hierarchies there, and gone afterwards."""
    name = str(uuid.uuid4())
    try:
        _call(checkout, "zdtm_mount_cgroups", name)
        yield
    finally:
        _call(checkout, "zdtm_umount_cgroups", name)


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """Remove the cgroups of version 1 that were made meanwhile."""
    before = _directories()
    try:
        yield
    finally:
        for hierarchy, path in sorted(_directories() - before, key=lambda one: -len(one[1])):
            with contextlib.suppress(OSError), hierarchy_root(hierarchy) as root:
                Path(root, path).rmdir()
        for name in LEFT_IN_VERSION_2:
            with contextlib.suppress(OSError):
                (unified() / name).rmdir()


def _directories() -> set[tuple[str, str]]:
    found = set()
    for hierarchy in own_places():
        if hierarchy == "freezer":  # orch's own jobs may be there
            continue
        with contextlib.suppress(OSError), hierarchy_root(hierarchy) as root:
            found |= {(hierarchy, os.path.relpath(directory, root)) for directory in walk(root)}
    return found


def _call(checkout: Checkout, script: str, name: str) -> None:
    subprocess.run(
        [f"./{script}", name],
        cwd=checkout.suite.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=SECONDS,
        check=False,
    )
