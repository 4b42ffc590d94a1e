"""Control groups as directories. See the kernel's admin-guide/cgroup-v2 and cgroup-v1/freezer-subsystem.

Every function takes the path of a cgroup's directory. A cgroup that is gone shows as
FileNotFoundError (at open) or ENODEV (on an open file).
"""

from __future__ import annotations

import os
import select
from typing import Self

from orchestrator.linux.procfs import read_file


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        error.add_note(f"write {text!r} to {path}")
        raise
    finally:
        os.close(fd)


def read_procs(directory: str) -> list[int]:
    """List the processes of a cgroup (not of its descendants), ascending, as our PID namespace sees them.

    0 stands for one that our PID namespace does not hold. A zombie is in no list.
    """
    return sorted({int(pid) for pid in read_file(f"{directory}/cgroup.procs").split()})


def read_threads(directory: str) -> list[int]:
    """List the threads of a cgroup (not of its descendants), ascending. The file is "tasks" in v1."""
    try:
        raw = read_file(f"{directory}/cgroup.threads")
    except FileNotFoundError:
        raw = read_file(f"{directory}/tasks")
    return sorted({int(tid) for tid in raw.split()})


def walk(directory: str) -> list[str]:
    """List a cgroup and its descendants, parents before children, in the order of their names."""
    found = [directory]
    with os.scandir(directory) as entries:
        children = sorted([entry.path for entry in entries if entry.is_dir(follow_symlinks=False)])
    for child in children:
        try:
            found += walk(child)
        except FileNotFoundError:
            continue
    return found


def create(directory: str) -> None:
    """Make a cgroup. FileExistsError if it is there."""
    os.mkdir(directory, 0o755)


def remove_tree(directory: str) -> None:
    """Remove a cgroup and its descendants; one that is gone is no error. EBUSY while a process is inside."""
    try:
        cgroups = walk(directory)
    except FileNotFoundError:
        return
    for cgroup in reversed(cgroups):
        try:
            os.rmdir(cgroup)
        except FileNotFoundError:
            continue


def attach(directory: str, pid: int) -> None:
    """Move a process, with all its threads, into a cgroup. 0 is the caller."""
    _write(f"{directory}/cgroup.procs", str(pid))


def kill(directory: str) -> None:
    """Send SIGKILL to every process of a v2 cgroup and its descendants, frozen or not (since Linux 5.14)."""
    _write(f"{directory}/cgroup.kill", "1")


def set_frozen(directory: str, frozen: bool) -> None:
    """Ask a v2 cgroup to freeze or thaw. "frozen" in its events tells when it has."""
    _write(f"{directory}/cgroup.freeze", "1" if frozen else "0")


def parse_events(raw: bytes) -> dict[str, int]:
    """Parse a flat-keyed file, e.g. cgroup.events or cgroup.stat."""
    words = raw.decode().split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


def read_events(directory: str) -> dict[str, int]:
    """Read a v2 cgroup's events: "populated" and, below the root, "frozen"; each 0 or 1."""
    return parse_events(read_file(f"{directory}/cgroup.events"))


def is_populated(directory: str) -> bool:
    """Say whether a v2 cgroup or a descendant holds a living process."""
    return read_events(directory)["populated"] == 1


class EventsWatch:
    """A descriptor that is readable once cgroup.events has changed since it was last read here.

    A readable-wait on the file itself returns at once for ever, and not every loop can wait for
    EPOLLPRI; an epoll that holds the file for EPOLLPRI alone is a descriptor that any loop can wait for.
    """

    __slots__ = ("_epoll", "_file")

    def __init__(self, directory: str) -> None:
        self._file = os.open(f"{directory}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        try:
            # A change counts from the last read.
            os.pread(self._file, 4096, 0)
            self._epoll = select.epoll()
            self._epoll.register(self._file, select.EPOLLPRI)
        except BaseException:
            os.close(self._file)
            raise

    def fileno(self) -> int:
        return self._epoll.fileno()

    def clear(self) -> dict[str, int]:
        """Read the events as they are now and wait from here on. ENODEV when the cgroup is gone."""
        return parse_events(os.pread(self._file, 4096, 0))

    def close(self) -> None:
        if self._file >= 0:
            self._epoll.close()
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def set_freezer_state(directory: str, state: str) -> None:
    """Ask a v1 freezer cgroup to be "FROZEN" or "THAWED"."""
    _write(f"{directory}/freezer.state", state)


def freezer_state(directory: str) -> str:
    """Read a v1 freezer cgroup's state: "THAWED", "FREEZING" or "FROZEN". Reading moves FREEZING on."""
    return read_file(f"{directory}/freezer.state").decode().strip()
