"""A job: a name, a cgroup, a supervisor, and what is known of it under /run/orch."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from typing import Literal

import msgspec

from orchestrator.errors import NoSuchJob
from orchestrator.freezer import CgroupRef, make_freezer
from orchestrator.ids import HostPid
from orchestrator.linux import cgroupfs
from orchestrator.linux.proc_stat import read_stat

STATE_DIRECTORY = "/run/orch"

_FAILURE = "failure"

# A cgroup's own files begin with "cgroup." and would be in the way of a job of that name.
NAME = re.compile(r"(?!cgroup\.)[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,63}")


class Birth(msgspec.Struct, frozen=True):
    """A process that cannot be taken for a later one with its number."""

    pid: int
    starttime: int
    """Clock ticks since boot, as in /proc/PID/stat."""

    @classmethod
    def of(cls, pid: int) -> Birth:
        """Read who a process is now. FileNotFoundError or ProcessLookupError when it is gone."""
        return cls(pid, read_stat(pid).starttime)

    def is_alive(self) -> bool:
        """Say whether it has not ended yet; a zombie has, unless just its main thread has ended."""
        try:
            stat = read_stat(self.pid)
        except (FileNotFoundError, ProcessLookupError):
            return False
        return stat.starttime == self.starttime and (stat.state not in "ZX" or stat.num_threads > 1)


class Stream(msgspec.Struct, frozen=True):
    """What a standard stream of a job was when it started, enough to know it again."""

    st_dev: int
    st_ino: int
    st_rdev: int
    st_mode: int

    @classmethod
    def of(cls, fd: int) -> Stream | None:
        """Look at one of our own descriptors; None where it is closed."""
        try:
            stat = os.fstat(fd)
        except OSError:
            return None
        return cls(stat.st_dev, stat.st_ino, stat.st_rdev, stat.st_mode)


class ImageNote(msgspec.Struct, frozen=True):
    """One checkpoint that was made of a job."""

    path: str
    created: float
    """Seconds since 1970."""


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What /run/orch/NAME/job.json holds."""

    name: str
    cgroup: str
    cgroup_version: Literal[1, 2]
    created: float
    """Seconds since 1970."""
    argv: tuple[str, ...]
    supervisor: Birth
    root: Birth
    streams: tuple[Stream | None, Stream | None, Stream | None]
    new: tuple[str, ...] = ()
    """The namespaces that were made for the job, by their names in /proc/PID/ns."""
    restored_from: str | None = None
    """The image, if the job came from one."""


class Job:
    """A job that is known under its name, running or not yet cleared away."""

    def __init__(self, record: JobRecord) -> None:
        self.record = record
        self.name = record.name
        self.cgroup = CgroupRef(record.cgroup_version, record.cgroup)

    @property
    def directory(self) -> str:
        """Where what is known of it lies."""
        return directory_of(self.name)

    def pids(self) -> list[HostPid]:
        """List the job's processes, ascending; none when the job has ended."""
        try:
            return make_freezer(self.cgroup).tasks()
        except NoSuchJob:
            return []

    def images(self) -> list[ImageNote]:
        """List the checkpoints made of the job, oldest first."""
        try:
            with open(f"{self.directory}/images", "rb") as lines:
                return [msgspec.json.decode(line, type=ImageNote) for line in lines]
        except FileNotFoundError:
            return []

    def note_image(self, path: str) -> None:
        """Remember that a checkpoint of the job was written to ``path``; of a job that has ended nothing is known."""
        note = ImageNote(os.path.abspath(path), time.time())
        try:
            fd = os.open(f"{self.directory}/images", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            os.write(fd, msgspec.json.encode(note) + b"\n")
        finally:
            os.close(fd)

    def is_supervised(self) -> bool:
        """Say whether a supervisor waits for the job."""
        return self.record.supervisor.is_alive()


def directory_of(name: str) -> str:
    """Return where what is known of a job lies."""
    return f"{STATE_DIRECTORY}/{name}"


def note_failure(directory: str, why: str) -> None:
    """Remember why a job is about to be killed, for its supervisor. ``directory`` is the job's."""
    with contextlib.suppress(OSError), open(f"{directory}/{_FAILURE}", "x", encoding="utf-8") as file:
        file.write(why)


def read_failure(directory: str) -> str | None:
    """Return why a job was killed by those who bring its memory, if it was."""
    try:
        with open(f"{directory}/{_FAILURE}", encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def pager_cgroup(path: str) -> str:
    """Name the cgroup of those who bring a job's memory, from that of the job; no job can have that name."""
    return f"{path}:pager"


def remove_cgroup(path: str) -> None:
    """Remove a job's empty cgroup, and orch's own if it was the last in it."""
    with contextlib.suppress(OSError):  # who is in there yet finds that the job has ended, and ends
        os.rmdir(pager_cgroup(path))
    cgroupfs.remove_tree(path)
    try:
        os.rmdir(os.path.dirname(path))
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY, errno.ENOENT):
            raise


def lock_directory(path: str, *, wait: bool) -> int | None:
    """Lock a state directory; None if another holds it, or it was removed while we waited."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if os.path.samestat(os.fstat(fd), os.stat(path)):
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(fd)
    return None


def clear_if_stale(name: str) -> bool:
    """Remove what a killed supervisor left of a job that has ended; say whether the name is free now."""
    path = directory_of(name)
    lock = lock_directory(path, wait=False)
    if lock is None:
        return not os.path.exists(path)
    try:
        record = _read_record(name)
        if record is not None:
            if Job(record).pids():
                return False
            remove_cgroup(record.cgroup)
        shutil.rmtree(path)
        return True
    except FileNotFoundError:
        return True
    finally:
        os.close(lock)


def _read_record(name: str) -> JobRecord | None:
    try:
        with open(f"{directory_of(name)}/job.json", "rb") as file:
            return msgspec.json.decode(file.read(), type=JobRecord)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None


def _records() -> Iterator[JobRecord]:
    try:
        names = sorted(os.listdir(STATE_DIRECTORY), key=_by_number)
    except FileNotFoundError:
        return
    for name in filter(NAME.fullmatch, names):
        record = _read_record(name)
        if record is not None:
            yield record


def _by_number(name: str) -> tuple[str, int]:
    stem = name.rstrip("0123456789")
    return stem, int(name[len(stem) :] or 0)


def list_jobs() -> list[Job]:
    """List the jobs that run, in the order of their names; what ended jobs have left is cleared away."""
    jobs = []
    for record in _records():
        job = Job(record)
        if not job.pids() and not job.is_supervised():
            if os.geteuid() == 0:
                clear_if_stale(record.name)
            continue
        jobs.append(job)
    return jobs


def find_job(name: str) -> Job:
    """Find a job by its name. Raises NoSuchJob."""
    record = _read_record(name) if NAME.fullmatch(name) else None
    if record is not None:
        job = Job(record)
        if job.pids() or job.is_supervised():
            return job
    raise NoSuchJob(f"there is no job named {name}", hint="'orch ps' lists the jobs")


def job_of_cgroup(path: str) -> Job | None:
    """Find the job that a cgroup belongs to; None for one that orch did not start."""
    for record in _records():
        if record.cgroup == path:
            return Job(record)
    return None
