"""The resource limits of orch itself. See getrlimit(2)."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def many_descriptors() -> Iterator[None]:
    """Allow ourselves, and whom we start meanwhile, as many descriptors as we may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def most_descriptors() -> int:
    """Return how many descriptors we may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]
