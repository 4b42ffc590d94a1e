"""Take a job's name, its state directory and its cgroup, and give them back."""

from __future__ import annotations

import errno
import os
import shutil

import msgspec

from orchestrator.errors import JobExists, NotPermitted, UsageError
from orchestrator.freezer import CgroupRef, parent_directory
from orchestrator.job import (
    NAME,
    STATE_DIRECTORY,
    JobRecord,
    clear_if_stale,
    directory_of,
    lock_directory,
    remove_cgroup,
)
from orchestrator.kill import KILL_SECONDS, empty_cgroup
from orchestrator.linux import cgroupfs


class Claim:
    """The right to a job's name: its state directory and its cgroup, held by the supervisor.

    The lock on the directory lasts as long as the process that holds the claim: a directory that is
    not locked and whose cgroup is empty was left by a supervisor that was killed.
    """

    def __init__(self, name: str, cgroup: CgroupRef, lock: int) -> None:
        self.name = name
        self.cgroup = cgroup
        self._lock = lock

    def publish(self, record: JobRecord) -> None:
        """Make the job known to others."""
        path = f"{directory_of(self.name)}/job.json"
        with open(f"{path}.new", "wb") as file:
            file.write(msgspec.json.encode(record))
        os.rename(f"{path}.new", path)

    def abandon(self) -> None:
        """Kill what is in the cgroup, and release the claim."""
        if self._lock < 0:
            return
        empty_cgroup(self.cgroup, KILL_SECONDS)
        self.release()

    def release(self) -> None:
        """Remove the cgroup and what was known of the job. The job must have ended."""
        if self._lock < 0:
            return
        remove_cgroup(self.cgroup.path)
        shutil.rmtree(directory_of(self.name), ignore_errors=True)
        os.close(self._lock)
        self._lock = -1


def claim_job(name: str | None = None) -> Claim:
    """Reserve a name ("job1", "job2", ... when none is given) and make its empty cgroup.

    Raises UsageError for an impossible name, JobExists for one that is taken, NotPermitted.
    """
    if name is not None and not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be a job's name", hint="use letters, digits and _ . @ + -, at most 64 of them"
        )
    parent = parent_directory()
    try:
        os.makedirs(STATE_DIRECTORY, exist_ok=True)
        if name is not None:
            claim = _try_claim(parent, name)
            if claim is None:
                raise JobExists(
                    f"there is a job named {name} already",
                    hint=f"choose another --name, or end that one with 'orch kill {name}'",
                )
            return claim
        number = 1
        while (claim := _try_claim(parent, f"job{number}")) is None:
            number += 1
        return claim
    except PermissionError as error:
        raise NotPermitted("starting a job needs root", hint="run orch as root") from error
    except OSError as error:
        if error.errno == errno.EROFS:
            raise NotPermitted(f"{error.filename} is on a read-only mount", hint="remount it writable") from error
        raise


def _try_claim(parent: CgroupRef, name: str) -> Claim | None:
    path = directory_of(name)
    while True:
        try:
            os.mkdir(path, 0o755)
        except FileExistsError:
            if not clear_if_stale(name):
                return None
            continue
        lock = lock_directory(path, wait=True)
        if lock is not None:
            break
    try:
        cgroup = CgroupRef(parent.version, f"{parent.path}/{name}")
        if _make_cgroup(cgroup):
            return Claim(name, cgroup, lock)
        os.rmdir(path)
        os.close(lock)
        return None
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)
        raise


def _make_cgroup(cgroup: CgroupRef) -> bool:
    """Make a job's cgroup, or say that somebody's processes are in one of that name."""
    while True:
        try:
            os.makedirs(os.path.dirname(cgroup.path), exist_ok=True)
            cgroupfs.create(cgroup.path)
            return True
        except FileExistsError:
            try:
                cgroupfs.remove_tree(cgroup.path)
            except OSError as error:
                if error.errno == errno.EBUSY:
                    return False
                raise
        except FileNotFoundError:
            # The last job of another orch ended, and took the parent away.
            continue
