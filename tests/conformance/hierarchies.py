"""The cgroup hierarchies that the suite makes for its tests of cgroups, by its own scripts."""

from __future__ import annotations

import contextlib
import subprocess
import uuid
from collections.abc import Iterator

from conformance.checkout import Checkout

SECONDS = 60


@contextlib.contextmanager
def suite_hierarchies(checkout: Checkout) -> Iterator[None]:
    """Have the hierarchies there, and gone afterwards."""
    name = str(uuid.uuid4())
    try:
        _call(checkout, "zdtm_mount_cgroups", name)
        yield
    finally:
        _call(checkout, "zdtm_umount_cgroups", name)


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
