"""What a checkpoint is taken of: a job, a cgroup, or a plain tree of processes."""

from __future__ import annotations

import os
import re

import msgspec

from orchestrator.errors import NoSuchProcess, SelfInJob, UsageError
from orchestrator.freezer import CgroupRef, find_cgroup
from orchestrator.ids import HostPid
from orchestrator.job import Job, job_of_cgroup
from orchestrator.linux.mountinfo import cgroup1_mount, cgroup2_mount
from orchestrator.linux.proc_stat import read_stat


class Target(msgspec.Struct, frozen=True):
    """One of the two: ``cgroup``, or ``tree``, the root of a plain tree."""

    name: str
    cgroup: CgroupRef | None = None
    tree: HostPid | None = None
    job: Job | None = None
    """The job that orch knows the cgroup as."""

    @property
    def default_image(self) -> str:
        """Where the image goes when nobody said."""
        return f"{self.name}.ckpt"

    @property
    def hierarchy_path(self) -> str:
        """Name the cgroup as /proc/PID/cgroup does in its hierarchy; "" without one."""
        if self.cgroup is None:
            return ""
        mount = cgroup2_mount() if self.cgroup.version == 2 else cgroup1_mount("freezer")
        if mount is None:
            return ""
        return "/" + os.path.relpath(self.cgroup.path, mount)


def find_target(what: Job | str | int) -> Target:
    """Find what to checkpoint: a job, the name or path of a cgroup, or the process id of a tree's root.

    Raises NoSuchJob, EmptyJob, SelfInJob, NoSuchProcess.
    """
    if isinstance(what, int):
        return _find_tree(what)
    cgroup = find_cgroup(what.cgroup.path if isinstance(what, Job) else what)
    job = what if isinstance(what, Job) else job_of_cgroup(cgroup.path)
    # A cgroup's name may be anything, and the image is named after it.
    name = re.sub(r"[^A-Za-z0-9_.@+-]", "_", os.path.basename(cgroup.path)) if job is None else job.name
    return Target(name, cgroup=cgroup, job=job)


def _find_tree(pid: int) -> Target:
    if pid < 1:
        raise UsageError(f"{pid} is no process id")
    ancestor = os.getpid()
    while ancestor > 0:
        if ancestor == pid:
            raise SelfInJob(f"orch itself is a descendant of process {pid}", hint="run orch from elsewhere")
        ancestor = read_stat(ancestor).ppid
    try:
        stat = read_stat(pid)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise NoSuchProcess(f"there is no process {pid}") from error
    if stat.state in "ZX":
        raise NoSuchProcess(f"process {pid} has ended: it is a zombie")
    return Target(f"pid-{pid}", tree=HostPid(pid))
