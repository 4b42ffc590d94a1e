"""orch: checkpoint and restore whole jobs on Linux.

::

    import orchestrator

    job = orchestrator.run(["./simulate", "--days", "30"], name="sim")
    image = orchestrator.checkpoint(job, "sim.ckpt", ending="kill")
    print(image.describe()["sizes"])
    orchestrator.restore("sim.ckpt").wait()

These functions block. ``orchestrator.aio`` has the same ones for trio. Every error that is raised on purpose is an
``orchestrator.OrchError``; ``orchestrator.errors`` draws the tree.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.api import (
        Image,
        Job,
        StartedJob,
        checkpoint,
        find_job,
        kill_job,
        list_jobs,
        migrate,
        open_image,
        prune,
        restore,
        run,
    )
    from orchestrator.errors import OrchError

__all__ = [
    "Image",
    "Job",
    "OrchError",
    "StartedJob",
    "aio",
    "checkpoint",
    "errors",
    "find_job",
    "kill_job",
    "list_jobs",
    "migrate",
    "open_image",
    "prune",
    "restore",
    "run",
]

# The package that rebuilds jobs and the function that users call have one name. Importing a package binds
# its name here, once: so it is imported now, and the name given to the function below.
import_module("orchestrator.restore")
globals().pop("restore", None)


def __getattr__(name: str) -> Any:
    """Import what is asked for, and no more: the command line starts ten times faster than all of this loads."""
    if name not in __all__:
        raise AttributeError(f"module 'orchestrator' has no attribute {name!r}")
    if name in ("aio", "errors"):
        return import_module(f"orchestrator.{name}")
    found = getattr(import_module("orchestrator.errors" if name == "OrchError" else "orchestrator.api"), name)
    globals()[name] = found
    return found
