"""Names for numbers that must not be mixed up.

A job lives in worlds of its own: its process ids are those of its PID namespace, its addresses
those of its own memory, its descriptors those of its own table. mypy keeps them from ours.
"""

from __future__ import annotations

from typing import NewType

HostPid = NewType("HostPid", int)
"""A process id (thread group id) as orch's own PID namespace sees it."""

HostTid = NewType("HostTid", int)
"""A thread id as orch's own PID namespace sees it."""

Pid = NewType("Pid", int)
"""A process id as the job itself sees it: the innermost number of NSpid in /proc/PID/status."""

Tid = NewType("Tid", int)
"""A thread id as the job itself sees it."""

FarAddr = NewType("FarAddr", int)
"""An address in a task's memory. Ours are plain Python buffers and never numbers."""

ObjectId = NewType("ObjectId", int)
"""The number of a record in its list of an image; shared state refers to it."""

DepotFd = NewType("DepotFd", int)
"""A descriptor number in the depot of a restore: high, the same in every restored process."""
