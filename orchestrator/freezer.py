"""Find a job's cgroup, and freeze and thaw it. See the kernel's cgroup-v2 and freezer-subsystem documents."""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple, Protocol, Self

from orchestrator.errors import EmptyJob, FreezeTimeout, JobBusy, NoSuchJob, NotPermitted, SelfInJob
from orchestrator.ids import HostPid
from orchestrator.linux import cgroupfs
from orchestrator.linux.mountinfo import cgroup1_mount, cgroup2_mount
from orchestrator.linux.proc_stat import read_stat
from orchestrator.linux.procfs import read_file, read_record
from orchestrator.vfork import vfork_parents

_VFORK_FIRST_PAUSE_SECONDS = 0.0005
_VFORK_LONGEST_PAUSE_SECONDS = 0.02
_V1_FIRST_PAUSE_SECONDS = 0.0002
_V1_LONGEST_PAUSE_SECONDS = 0.01


class CgroupRef(NamedTuple):
    """A cgroup that can be frozen: which hierarchy it is in, and its directory."""

    version: Literal[1, 2]
    path: str


def parent_directory() -> CgroupRef:
    """Name the cgroup that orch's own jobs live under; it need not exist yet.

    Where systemd runs it is a slice, which systemd then leaves to us.
    """
    name = "orch.slice" if os.path.isdir("/run/systemd/system") else "orch"
    if mount := cgroup2_mount():
        return CgroupRef(2, f"{mount}/{name}")
    if mount := cgroup1_mount("freezer"):
        return CgroupRef(1, f"{mount}/{name}")
    raise NoSuchJob("neither cgroup v2 nor the v1 freezer is mounted here", hint="mount -t cgroup2 none /sys/fs/cgroup")


def _candidates(name_or_path: str) -> Iterator[str]:
    if name_or_path.startswith("/"):
        yield os.path.normpath(name_or_path)
    relative = os.path.normpath(name_or_path.lstrip("/"))
    if relative == ".." or relative.startswith("../"):
        return
    yield f"{parent_directory().path}/{relative}"
    for mount in (cgroup2_mount(), cgroup1_mount("freezer")):
        if mount:
            yield f"{mount}/{relative}"


def locate_cgroup(name_or_path: str) -> CgroupRef:
    """Find a cgroup by its path, or by its name under orch's own parent, the cgroup2 mount or the v1 freezer.

    A path as /proc/PID/cgroup shows it is found too. Raises NoSuchJob.
    """
    if not name_or_path:
        raise NoSuchJob("a cgroup needs a name")
    other = None
    for path in _candidates(name_or_path):
        if os.path.exists(f"{path}/cgroup.freeze"):
            return CgroupRef(2, path)
        if os.path.exists(f"{path}/freezer.state"):
            return CgroupRef(1, path)
        if os.path.exists(f"{path}/cgroup.procs"):
            other = path
    if other is not None:
        raise NoSuchJob(
            f"the cgroup {other} cannot be frozen: it is the root of a hierarchy, or of another controller",
            hint="name a cgroup below the root of cgroup v2 or of the v1 freezer",
        )
    raise NoSuchJob(f"there is no cgroup or job named {name_or_path}", hint="'orch ps' lists the jobs")


def find_cgroup(name_or_path: str) -> CgroupRef:
    """Find a cgroup as :func:`locate_cgroup` does, and see that its processes can be frozen by us.

    Raises NoSuchJob, EmptyJob, SelfInJob.
    """
    ref = locate_cgroup(name_or_path)
    pids = make_freezer(ref).tasks()
    if not pids:
        raise EmptyJob(f"the cgroup {ref.path} holds no process")
    if os.getpid() in pids:
        raise SelfInJob(
            f"orch itself runs in the cgroup {ref.path}, and would freeze with it",
            hint="start the job with 'orch run', or run orch from another cgroup",
        )
    return ref


class Freezer(Protocol):
    """Stops and starts all tasks of a cgroup and of those below it, unseen by the tasks."""

    path: str

    def remember(self) -> None:
        """Note what the user has frozen; :meth:`freeze` does so too."""

    def freeze(self, timeout: float) -> None:
        """Stop every task. After ``timeout`` seconds undo it and raise FreezeTimeout with the tasks' names."""

    def bind(self) -> None:
        """Have tasks that are held stand still even if their tracer dies; :meth:`thaw` undoes it."""

    def thaw(self) -> None:
        """Let every task run, also those that the user had frozen; :meth:`leave` brings that back."""

    def leave(self) -> None:
        """Put back what the user had set, before the tasks are let go."""

    def is_frozen(self) -> bool:
        """Say whether every task stands still now, whoever asked for it."""

    def tasks(self) -> list[HostPid]:
        """List the processes of the cgroup and of those below it, ascending."""


def make_freezer(ref: CgroupRef) -> Freezer:
    """Choose the freezer that fits the cgroup's hierarchy."""
    return V2Freezer(ref.path) if ref.version == 2 else V1Freezer(ref.path)


@contextmanager
def _as_job_errors(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NoSuchJob(f"the cgroup {path} is gone") from error
    except PermissionError as error:
        raise NotPermitted(f"not allowed to use the cgroup {path}", hint="run orch as root") from error
    except OSError as error:
        if error.errno == errno.ENODEV:
            raise NoSuchJob(f"the cgroup {path} is gone") from error
        if error.errno == errno.EROFS:
            raise NotPermitted(f"the cgroup {path} is mounted read-only", hint="remount it writable") from error
        raise


class _Freezer:
    """What both hierarchies share: remembering what the user had frozen."""

    _stopped_states = "TtZX"
    _stopped_places: tuple[str, ...] = ()

    def __init__(self, path: str) -> None:
        self.path = path
        self._frozen_by_user: tuple[str, ...] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def tasks(self) -> list[HostPid]:
        pids: set[int] = set()
        with _as_job_errors(self.path):
            for directory in cgroupfs.walk(self.path):
                try:
                    pids.update(cgroupfs.read_procs(directory))
                except OSError as error:
                    # A threaded cgroup: its processes are listed in the one that it is a part of.
                    if error.errno != errno.EOPNOTSUPP and not (
                        directory != self.path and error.errno in (errno.ENOENT, errno.ENODEV)
                    ):
                        raise
        if 0 in pids:
            raise JobBusy(
                f"the cgroup {self.path} holds a process that is outside of our PID namespace",
                hint="run orch in the PID namespace of the host",
            )
        return [HostPid(pid) for pid in sorted(pids)]

    def remember(self) -> None:
        with _as_job_errors(self.path):
            if self._frozen_by_user is None:
                if self._is_frozen_from_above():
                    raise JobBusy(f"a cgroup above {self.path} is frozen", hint="thaw that one first")
                self._frozen_by_user = tuple(
                    directory for directory in cgroupfs.walk(self.path) if self._asks_frozen(directory)
                )

    def freeze(self, timeout: float) -> None:
        with _as_job_errors(self.path):
            self.remember()
            try:
                late = self._freeze_all(time.monotonic() + timeout)
                if late is None:
                    return
            except BaseException:
                self.leave()
                raise
            self.leave()
        raise FreezeTimeout(
            f"the job did not freeze within {timeout:g} s: {late}",
            hint="a task that waits in the kernel for a device or a network filesystem stops once that answers",
        )

    def _freeze_all(self, deadline: float) -> str | None:
        """Freeze with no task in a state that a tracer cannot stop it in; return who is in the way, or None."""
        pause_seconds = _VFORK_FIRST_PAUSE_SECONDS
        parents: list[str] = []
        while True:
            if self._freeze(deadline):
                parents = vfork_parents(self.tasks())
                if not parents:
                    return None
            elif not parents:
                return self._late_tasks()
            # The child has yet to call exec. A job that the user had frozen must not run on for that.
            if self._frozen_by_user or time.monotonic() >= deadline:
                return ", ".join(f"{parent} waits for the child that it made with vfork" for parent in parents)
            self._ask(self.path, False)
            time.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _VFORK_LONGEST_PAUSE_SECONDS)

    def bind(self) -> None:
        with _as_job_errors(self.path):
            self._ask(self.path, True)

    def thaw(self) -> None:
        with _as_job_errors(self.path):
            for directory in (*(self._frozen_by_user or ()), self.path):
                self._ask(directory, False)

    def leave(self) -> None:
        frozen = self._frozen_by_user
        if frozen is None:
            return
        try:
            for directory in frozen:
                self._ask(directory, True)
            if self.path not in frozen:
                self._ask(self.path, False)
        except OSError as error:
            # The job has ended meanwhile.
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise

    def _freeze(self, deadline: float) -> bool:
        raise NotImplementedError

    def _is_frozen_from_above(self) -> bool:
        raise NotImplementedError

    def _asks_frozen(self, directory: str) -> bool:
        raise NotImplementedError

    def _ask(self, directory: str, frozen: bool) -> None:
        raise NotImplementedError

    def _late_tasks(self) -> str:
        """Name the threads that still run or wait in the kernel, with where they wait."""
        late = []
        for pid in self.tasks():
            try:
                for name in os.listdir(f"/proc/{pid}/task"):
                    stat = read_stat(pid, int(name))
                    where = read_file(f"/proc/{pid}/task/{name}/wchan").decode()
                    if stat.state not in self._stopped_states and where not in self._stopped_places:
                        comm = stat.comm.decode(errors="replace")
                        late.append(f"{name} ({comm}) " + (f"waits in {where}" if where not in ("", "0") else "runs"))
            except (FileNotFoundError, ProcessLookupError):
                continue
        return ", ".join(late) or "its tasks changed too fast to name one"


class V2Freezer(_Freezer):
    """cgroup.freeze, and an event when it is done."""

    # The second where the compiler has put the first into it.
    _stopped_places = ("do_freezer_trap", "get_signal")

    def _freeze(self, deadline: float) -> bool:
        with cgroupfs.EventsWatch(self.path) as watch:
            poll = select.poll()
            poll.register(watch.fileno(), select.POLLIN)
            self._ask(self.path, True)
            while True:
                events = watch.clear()
                if events["populated"] == 0:
                    raise EmptyJob(f"the last process of the cgroup {self.path} has ended")
                if events["frozen"] == 1:
                    return True
                if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    return False

    def is_frozen(self) -> bool:
        with _as_job_errors(self.path):
            return cgroupfs.read_events(self.path)["frozen"] == 1

    def _is_frozen_from_above(self) -> bool:
        return cgroupfs.read_events(self.path)["frozen"] == 1 and not self._asks_frozen(self.path)

    def _asks_frozen(self, directory: str) -> bool:
        return read_record(f"{directory}/cgroup.freeze").strip() == b"1"

    def _ask(self, directory: str, frozen: bool) -> None:
        cgroupfs.set_frozen(directory, frozen)


class V1Freezer(_Freezer):
    """freezer.state, which tells nobody when it changes and moves on only while it is read."""

    # Since Linux 6.1 many sleeps are frozen where they are, and shown as D.
    _stopped_states = "DTtZX"

    def _freeze(self, deadline: float) -> bool:
        self._ask(self.path, True)
        pause_seconds = _V1_FIRST_PAUSE_SECONDS
        while cgroupfs.freezer_state(self.path) != "FROZEN":
            if time.monotonic() >= deadline:
                return False
            time.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _V1_LONGEST_PAUSE_SECONDS)
            if pause_seconds == _V1_LONGEST_PAUSE_SECONDS:
                # A task that was just being forked, or went to sleep, may have missed it; the kernel asks but once.
                self._ask(self.path, True)
        if not self.tasks():
            raise EmptyJob(f"the last process of the cgroup {self.path} has ended")
        return True

    def is_frozen(self) -> bool:
        with _as_job_errors(self.path):
            return cgroupfs.freezer_state(self.path) == "FROZEN"

    def _is_frozen_from_above(self) -> bool:
        return read_record(f"{self.path}/freezer.parent_freezing").strip() == b"1"

    def _asks_frozen(self, directory: str) -> bool:
        return read_record(f"{directory}/freezer.self_freezing").strip() == b"1"

    def _ask(self, directory: str, frozen: bool) -> None:
        cgroupfs.set_freezer_state(directory, "FROZEN" if frozen else "THAWED")
