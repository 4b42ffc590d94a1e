"""What a restored job stands in: its namespaces and its cgroup."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from orchestrator.ids import HostPid, HostTid, Pid, Tid
from orchestrator.kinds.files.kind import Depot
from orchestrator.kinds.memory.record import AddressSpace
from orchestrator.kinds.task.own_cgroups import OwnCgroupMaker
from orchestrator.kinds.task.places import CgroupDirectory, PlaceMaker
from orchestrator.kinds.task.process import Process
from orchestrator.linux import cgroupfs
from orchestrator.linux.mountinfo import cgroup1_mount, cgroup2_mount
from orchestrator.linux.nsfs import CLONE_NEWCGROUP, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWTIME
from orchestrator.linux.proc_misc import cgroup_of
from orchestrator.linux.proc_status import read_status
from orchestrator.namespaces.registry import NAMESPACE_KINDS
from orchestrator.namespaces.time import TimeNamespace, initial_clocks, offsets
from orchestrator.restore.baseline import Baseline
from orchestrator.restore.play import Actor, Birth, Stage
from orchestrator.restore.tree import Node
from orchestrator.snapshot import Clocks
from orchestrator.tape.build import Tape


class Surroundings:
    """Decides which namespaces are new, and does from outside what tapes cannot do."""

    def __init__(
        self,
        namespaces: Sequence[Any],
        clocks: Clocks,
        *,
        new: frozenset[str],
        host_pids: bool,
        cgroup: str | None,
        baseline: Baseline,
        cgroups: Sequence[CgroupDirectory] = (),
        own_cgroups: Sequence[CgroupDirectory] = (),
    ) -> None:
        self._records = {namespace.kind: namespace for namespace in namespaces}
        self._clocks = clocks
        self._cgroup = cgroup
        self._baseline = baseline
        self.places = PlaceMaker(cgroups)
        """The cgroups of version 1 that threads are put into."""
        self.cgroups = OwnCgroupMaker(cgroup, own_cgroups)
        self.cgroup_fd = _open_cgroup2(cgroup)
        """Our descriptor of the job's cgroup, if that is of version 2."""
        private = {kind for kind, namespace in self._records.items() if namespace.private}
        self.new = private | new | {"time"}
        if host_pids:
            self.new -= {"pid"}
        else:
            self.new |= {"pid", "mnt"}
        self.new_pid_namespace = "pid" in self.new
        self.flags = 0
        for kind in self.new:
            self.flags |= NAMESPACE_KINDS[kind].clone_flag
        self.flags &= ~(CLONE_NEWTIME | CLONE_NEWCGROUP)
        assert not self.new_pid_namespace or self.flags & (CLONE_NEWPID | CLONE_NEWNS)

    @property
    def has_cgroup(self) -> bool:
        """Whether the job gets a cgroup."""
        return self._cgroup is not None

    def close(self) -> None:
        """Give back what was opened."""
        if self.cgroup_fd is not None:
            os.close(self.cgroup_fd)
            self.cgroup_fd = None

    def clone_tape(self, stage: Stage, seed: Actor) -> Tape:
        """Return the tape to which the clone of process 1 is added; makes the time namespace."""
        if "time" in self.new:
            tape = Tape("seed: new time namespace")
            tape.unshare(CLONE_NEWTIME)
            stage.play(seed, tape)
            record = TimeNamespace(monotonic_ns=self._clocks.monotonic, boottime_ns=self._clocks.boottime)
            now = initial_clocks()
            text = offsets(record, now.monotonic_ns, now.boottime_ns)
            fd = os.open(f"/proc/{seed.tracee.tid}/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, text)
            finally:
                os.close(fd)
        return Tape("seed: clone process 1")

    def before_depot(self, depot: Depot) -> None:
        """Let private namespaces put what they hold into the depot: segments, files of a tmpfs."""
        for kind, handler in NAMESPACE_KINDS.items():
            record = self._records.get(kind)
            if handler.fill is not None and record is not None and record.private and record.body is not None:
                handler.fill(record.body, depot)

    def inside(self, stage: Stage, first: Actor, depot: Depot, *, own_init: bool) -> None:
        """Rebuild the namespaces in process 1, then open everything."""
        host = HostPid(first.tracee.tid)
        if "cgroup" in self.new:
            self._narrow_cgroup_view(stage, first, stays=own_init)
        for kind, handler in NAMESPACE_KINDS.items():
            if kind not in self.new:
                continue
            record = self._records.get(kind)
            body = record.body if record is not None and record.private else None
            tape = Tape(f"process 1: {kind} namespace")
            if handler.fresh is not None and (body is None or kind == "mnt"):
                handler.fresh(tape)
            if body is not None and handler.rebuild is not None:
                handler.rebuild(body, tape)
            if len(tape):
                stage.play(first, tape)
            if body is not None and handler.outside is not None:
                handler.outside(body, host)
        stage.play(first, depot.tape, [_helper(tape) for tape in depot.helpers])

    def _narrow_cgroup_view(self, stage: Stage, first: Actor, *, stays: bool) -> None:
        """Make a cgroup namespace in process 1: its root is where that is then, which is to be the job's cgroup."""
        host = HostPid(first.tracee.tid)
        home = _own_cgroup(version=1 if self.cgroup_fd is None else 2) if self._cgroup else None
        if self._cgroup:
            cgroupfs.attach(self._cgroup, host)
        tape = Tape("process 1: new cgroup namespace")
        tape.unshare(CLONE_NEWCGROUP)
        stage.play(first, tape)
        if home and not stays:
            cgroupfs.attach(home, host)

    def born(self, node: Node, host: HostPid) -> None:
        """Put a root of the job into the job's cgroup, if it was not born there; its children follow by birth."""
        if (
            self._cgroup
            and self.cgroup_fd is None
            and node.process is not None
            and (node.creator is None or node.creator.process is None)
        ):
            cgroupfs.attach(self._cgroup, host)

    def settle(self, process: Process, memory: AddressSpace, host: HostPid) -> None:
        """Set from outside what a task cannot set itself, or not with the credentials it has by now."""
        assert process.state is not None
        if process.state.cgroup and self._cgroup:
            self.cgroups.put(process.state.cgroup, HostTid(host), alone=False)
        if process.state.oom_score_adj != self._baseline.oom_score_adj:
            _write(f"/proc/{host}/oom_score_adj", str(process.state.oom_score_adj))
        if process.state.session_nice:
            _write(f"/proc/{host}/autogroup", str(process.state.session_nice))
        if memory.coredump_filter != self._baseline.coredump_filter:
            _write(f"/proc/{host}/coredump_filter", f"{memory.coredump_filter:#x}")


def _helper(tape: Tape) -> Birth:
    """Describe a child of the depot; it has whatever number is free."""

    def born(actor: Actor) -> list[Birth]:
        number = read_status(actor.tracee.tid).ns_pid[-1]
        actor.tracee.pid, actor.tracee.vtid = Pid(number), Tid(number)
        return []

    return Birth(Pid(0), Tid(0), tape, born)


def _own_cgroup(version: int) -> str:
    """Find the directory of the cgroup that we are in, and process 1 with us."""
    mount, controllers = (cgroup2_mount(), "") if version == 2 else (cgroup1_mount("freezer"), "freezer")
    return f"{mount}{cgroup_of(os.getpid())[controllers]}"


def _open_cgroup2(directory: str | None) -> int | None:
    if directory is None or not os.path.exists(os.path.join(directory, "cgroup.events")):
        return None
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
