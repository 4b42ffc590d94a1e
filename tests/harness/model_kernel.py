"""A kernel of processes, sessions, groups and what they share: no more of it than fork(2) and its relatives change."""

from __future__ import annotations

from dataclasses import dataclass, field

CLONE_VM, CLONE_FS, CLONE_FILES, CLONE_SIGHAND, CLONE_PARENT = 0x100, 0x200, 0x400, 0x800, 0x8000
TABLES = {"memory": CLONE_VM, "filesystem": CLONE_FS, "files": CLONE_FILES, "signal_actions": CLONE_SIGHAND}
SIGCHLD = 17


class Refused(Exception):
    """The kernel would have returned an error."""


@dataclass(eq=False, slots=True)
class Task:
    pid: int
    parent: Task | None
    group: int
    session: int
    exit_signal: int = SIGCHLD
    alive: bool = True
    subreaper: bool = False
    exit_status: int = 0
    born: int = 0
    tables: dict[str, object] = field(default_factory=dict)


class ModelKernel:
    """Process trees; ``init`` reaps whatever loses its parent, and at once if ``init_reaps``."""

    def __init__(self, pid: int, session: int, group: int, *, init_reaps: bool) -> None:
        self.init = Task(pid, None, group, session, tables={name: object() for name in TABLES})
        self.tasks = {pid: self.init}
        self.init_reaps = init_reaps

    def alive(self) -> list[Task]:
        return [task for task in self.tasks.values() if task.alive]

    def children(self, task: Task) -> list[Task]:
        return [child for child in self.tasks.values() if child.parent is task]

    def clone(self, creator: Task, pid: int, flags: int = 0, exit_signal: int = SIGCHLD) -> Task:
        if not creator.alive:
            raise Refused("a dead task clones")
        if any(pid in (task.pid, task.group, task.session) for task in self.tasks.values()):
            raise Refused(f"EEXIST: {pid} is in use")
        parent: Task | None = creator
        if flags & CLONE_PARENT:
            if creator is self.init or exit_signal:
                raise Refused("EINVAL: CLONE_PARENT")
            parent, exit_signal = creator.parent, creator.exit_signal
        if flags & CLONE_SIGHAND and not flags & CLONE_VM:
            raise Refused("EINVAL: CLONE_SIGHAND without CLONE_VM")
        tables = {name: creator.tables[name] if flags & flag else object() for name, flag in TABLES.items()}
        new = Task(pid, parent, creator.group, creator.session, exit_signal, born=len(self.tasks), tables=tables)
        self.tasks[pid] = new
        return new

    def setsid(self, task: Task) -> None:
        if any(other.group == task.pid for other in self.tasks.values()):
            raise Refused("EPERM: it leads a group")
        task.session = task.group = task.pid

    def setpgid(self, task: Task, group: int) -> None:
        group = group or task.pid
        if task.session == task.pid:
            raise Refused("EPERM: a session leader")
        if group != task.pid and not any(
            other.group == group and other.session == task.session for other in self.tasks.values()
        ):
            raise Refused(f"EPERM: no group {group} in its session")
        task.group = group

    def exit(self, task: Task, status: int = 0) -> None:
        reaper = task.parent
        while reaper is not None and reaper is not self.init and not (reaper.alive and reaper.subreaper):
            reaper = reaper.parent
        reaper = reaper or self.init
        task.alive, task.exit_status = False, status
        for child in self.children(task):
            child.parent, child.exit_signal = reaper, SIGCHLD
            self._if_nobody_waits(child)
        self._if_nobody_waits(task)

    def _if_nobody_waits(self, task: Task) -> None:
        if not task.alive and task.parent is self.init and self.init_reaps:
            del self.tasks[task.pid]

    def wait(self, task: Task, pid: int) -> None:
        child = self.tasks.get(pid)
        if child is None or child.parent is not task:
            raise Refused(f"ECHILD: {pid} is no child of {task.pid}")
        if child.alive:
            raise Refused(f"{task.pid} would wait for {pid} for ever")
        del self.tasks[pid]
