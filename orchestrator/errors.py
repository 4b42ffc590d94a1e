"""Everything that can go wrong, as one tree. Each class has an exit code of its own.

::

    OrchError                        1   anything below; never raised itself
    ├── UsageError                   2   the command line or a call's arguments make no sense
    ├── NotPermitted                 3   root or a capability is missing
    ├── KernelLacks                  4   this kernel has no support for something that is needed
    ├── JobError
    │   ├── NoSuchJob               10   no cgroup or job of that name
    │   ├── EmptyJob                11   the cgroup holds no process
    │   ├── SelfInJob               12   orch itself is in the cgroup it should freeze
    │   ├── NoSuchProcess           13   the PID is gone
    │   ├── JobExists               14   the name is taken by a job that still runs
    │   ├── JobBusy                 15   another tracer or another orch holds the job
    │   └── CommandNotFound         16   the program to run is missing or not executable
    ├── CheckpointError
    │   ├── Unsupported             20   the job holds state that orch cannot rebuild (all of it is listed)
    │   ├── NotSelfContained        21   the job shares state with processes outside (all of it is listed)
    │   ├── FreezeTimeout           22   a task did not stop in time
    │   └── CaptureFailed           23   a task could not be asked about itself, or was killed
    ├── ImageError
    │   ├── ImageMissing            30   there is no such image file
    │   ├── ImageTruncated          31   the image ends before its trailer
    │   ├── NotAnImage              32   the file is something else
    │   ├── ImageVersion            33   written by another format version
    │   ├── ImageArchitecture       34   written on another architecture or page size
    │   ├── ImageCorrupt            35   a record or a page run is damaged (it is named)
    │   ├── ImageWriteFailed        36   the image could not be written: disk full, no such directory
    │   ├── ImageEncrypted          37   the image is encrypted, and no key was given
    │   ├── WrongKey                38   no key that was given opens the image
    │   ├── BadKey                  39   a key file is missing, damaged or open to others
    │   ├── ChainBroken             50   an image that this one refers to is missing, damaged or another one
    │   └── ImageInUse              51   another image refers to the one that would be replaced or removed
    └── RestoreError
        ├── PidTaken                40   a process id of the image is in use
        ├── FileMissing             41   a file that the job had open or mapped is gone
        ├── FileChanged             42   such a file is not the one it was
        ├── ResourceTaken           43   a port, a name, a lock or a terminal is held by somebody else
        ├── RebuildFailed           44   a task of the restored job could not be rebuilt
        ├── CannotHonour            45   what was asked for does not fit this image or machine
        ├── PagesLost               46   memory of a running job did not come from its image: the job was killed
        ├── RestoreStalled          47   a restore did not get on any more: a file system does not answer
        └── PeerLost                48   the other end of a migration is gone, or is no orch

An exit code is never reused. 128+N is the exit status of a job that died of signal N, and 130 is
orch interrupted. A message says what happened, to which task and object; ``hint`` says what to do.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class OrchError(Exception):
    """The base of every error that orch raises on purpose."""

    exit_code: int = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class UsageError(OrchError):
    """The command line or a call's arguments make no sense."""

    exit_code = 2


class NotPermitted(OrchError):
    """Root or a capability is missing."""

    exit_code = 3


class KernelLacks(OrchError):
    """This kernel has no support for something that is needed."""

    exit_code = 4


class JobError(OrchError):
    """The job itself is not what it should be."""


class NoSuchJob(JobError):
    """No cgroup or job of that name."""

    exit_code = 10


class EmptyJob(JobError):
    """The cgroup holds no process."""

    exit_code = 11


class SelfInJob(JobError):
    """orch itself is in the cgroup that it should freeze."""

    exit_code = 12


class NoSuchProcess(JobError):
    """The PID is gone."""

    exit_code = 13


class JobExists(JobError):
    """The name is taken by a job that still runs."""

    exit_code = 14


class JobBusy(JobError):
    """Another tracer or another orch holds the job."""

    exit_code = 15


class CommandNotFound(JobError):
    """The program to run is missing or not executable."""

    exit_code = 16


class CheckpointError(OrchError):
    """A checkpoint that was not made; the job goes on as before."""


class Blocker(msgspec.Struct, frozen=True):
    """One thing that stands in the way of a checkpoint."""

    task: str
    """The task, as "PID (comm)"."""
    object: str
    """The object, as "fd 7 (anon_inode:[io_uring])" or "memory 0x7f..-0x7f.. (/dev/kvm)"."""
    reason: str
    """Why it cannot be saved."""
    hint: str | None = None
    """The option that would allow it, if one exists."""

    def __str__(self) -> str:
        text = f"{self.task}: {self.object}: {self.reason}"
        return f"{text} ({self.hint})" if self.hint else text


class Blocked(CheckpointError):
    """A checkpoint refused before anything was written; lists every blocker at once."""

    headline = "this job cannot be checkpointed"

    def __init__(self, blockers: Sequence[Blocker]) -> None:
        lines = [f"{self.headline}: {len(blockers)} blocker{'s' if len(blockers) != 1 else ''}"]
        lines += [f"  {blocker}" for blocker in blockers]
        super().__init__("\n".join(lines))
        self.blockers = tuple(blockers)


class Unsupported(Blocked):
    """The job holds state that orch cannot rebuild."""

    exit_code = 20
    headline = "this job holds state that orch cannot rebuild"


class NotSelfContained(Blocked):
    """The job shares state with processes outside of it."""

    exit_code = 21
    headline = "this job shares state with processes outside of it"


class FreezeTimeout(CheckpointError):
    """A task did not stop in time."""

    exit_code = 22


class CaptureFailed(CheckpointError):
    """A task could not be asked about itself, or was killed meanwhile."""

    exit_code = 23


class ImageError(OrchError):
    """An image that cannot be read or written."""


class ImageMissing(ImageError):
    """There is no such image file."""

    exit_code = 30


class ImageTruncated(ImageError):
    """The image ends before its trailer."""

    exit_code = 31


class NotAnImage(ImageError):
    """The file is something else."""

    exit_code = 32


class ImageVersion(ImageError):
    """The image was written by another format version."""

    exit_code = 33


class ImageArchitecture(ImageError):
    """The image was written on another architecture or page size."""

    exit_code = 34


class ImageCorrupt(ImageError):
    """A record or a page run of the image is damaged."""

    exit_code = 35


class ImageWriteFailed(ImageError):
    """The image could not be written."""

    exit_code = 36


class ImageEncrypted(ImageError):
    """The image is encrypted, and no key was given."""

    exit_code = 37


class WrongKey(ImageError):
    """No key that was given opens the image."""

    exit_code = 38


class BadKey(ImageError):
    """A key file is missing, holds no key, or may be read by others."""

    exit_code = 39


class ChainBroken(ImageError):
    """An image that this one refers to is missing, damaged or another one."""

    exit_code = 50


class ImageInUse(ImageError):
    """Another image refers to the one that would be replaced or removed."""

    exit_code = 51


class RestoreError(OrchError):
    """A restore that did not happen; nothing of it is left."""


class PidTaken(RestoreError):
    """A process id of the image is in use."""

    exit_code = 40


class FileMissing(RestoreError):
    """A file that the job had open or mapped is gone."""

    exit_code = 41


class FileChanged(RestoreError):
    """A file that the job had open or mapped is not the one it was."""

    exit_code = 42


class ResourceTaken(RestoreError):
    """A port, a socket name, a lock or a terminal's number is held by somebody else."""

    exit_code = 43


class RebuildFailed(RestoreError):
    """A task of the restored job could not be rebuilt."""

    exit_code = 44


class CannotHonour(RestoreError):
    """What was asked for does not fit this image or machine."""

    exit_code = 45


class PagesLost(RestoreError):
    """Memory of a running job did not come from its image: the job was killed."""

    exit_code = 46


class RestoreStalled(RestoreError):
    """A restore did not get on any more: a file system does not answer."""

    exit_code = 47


class PeerLost(RestoreError):
    """The other end of a migration is gone, or is no orch."""

    exit_code = 48


class BlockerList(msgspec.Struct):
    """Collects blockers while a job is looked over, and raises once with all of them."""

    unsupported: list[Blocker] = msgspec.field(default_factory=list)
    outside: list[Blocker] = msgspec.field(default_factory=list)

    def raise_if_any(self) -> None:
        """Raise :class:`Unsupported` or :class:`NotSelfContained` if anything was collected."""
        if self.unsupported:
            raise Unsupported(self.unsupported + self.outside)
        if self.outside:
            raise NotSelfContained(self.outside)
