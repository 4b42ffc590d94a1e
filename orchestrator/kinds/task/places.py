"""Cgroups of version 1 that threads of a job are in, where these are not those of orch.

Where a thread is in the same cgroup of a hierarchy as the orch that saves it, it will be in that of the orch that
restores it. Elsewhere, its cgroup is made again if it is gone, with what is above and below it, its settings, owners
and permissions.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Collection, Iterable, Sequence

import msgspec

from orchestrator.errors import CannotHonour
from orchestrator.ids import HostTid
from orchestrator.kinds.record import Record
from orchestrator.linux import cgroupfs
from orchestrator.linux.cgroup1 import hierarchy_root, own_places, places_of

_SYSTEMD = "name=systemd"
"""That of the service manager, who cares for it himself where he is."""
_MEMBERS = frozenset(("cgroup.procs", "tasks"))
_DEVICES = "devices.list"
_NATURE = frozenset(("cgroup.type", "cgroup.subtree_control"))
_COUNTERS = ("usage", "failcnt", "max_usage")
_MOST = 1000

Place = tuple[str, str]
"""A hierarchy and a path in it: ("name=x", "/a/b")."""


class CgroupFile(Record, frozen=True, array_like=True):
    """A file of a cgroup."""

    name: str
    mode: int
    uid: int
    gid: int
    value: str | None
    """What it holds, if it is a setting."""


class CgroupDirectory(Record, frozen=True):
    """A cgroup."""

    hierarchy: str
    """"name=x" or a controller of version 1; "" for version 2."""
    path: str
    """From the top of the hierarchy; for the job's own from the job's, "" for that itself."""
    mode: int
    uid: int
    gid: int
    files: list[CgroupFile]


class Elsewhere:
    """Finds threads whose cgroups are not ours. Make it before the job is frozen."""

    def __init__(self, ignore: Collection[str] = ()) -> None:
        """Look which threads of the machine are elsewhere; ``ignore``: hierarchies that the job's own cgroup is in."""
        self._ignore = {*ignore, *([_SYSTEMD] if os.path.isdir("/run/systemd/system") else [])}
        self._own = {name: path for name, path in own_places().items() if name not in self._ignore}
        self._tids: set[int] = set()
        self._used: dict[Place, None] = {}
        for hierarchy, own in self._own.items():
            with contextlib.suppress(OSError), hierarchy_root(hierarchy) as root:
                for directory in cgroupfs.walk(root):
                    if directory != _join(root, own):
                        with contextlib.suppress(OSError):
                            self._tids.update(cgroupfs.read_threads(directory))

    @property
    def watches(self) -> bool:
        """Whether there are hierarchies of version 1 at all."""
        return bool(self._own)

    def of(self, pid: int, tid: int, leader: dict[str, str]) -> tuple[Place, ...]:
        """Return where a thread is that is not where we are. ``leader``: where its process is."""
        if tid == pid:
            places = leader
        elif tid in self._tids or self._strays(leader):
            places = places_of(pid, tid)
        else:
            return ()
        found = self._strays(places)
        self._used |= dict.fromkeys(found)
        return found

    def _strays(self, places: dict[str, str]) -> tuple[Place, ...]:
        return tuple((name, path) for name, path in places.items() if name and self._is_stray(name, path))

    def _is_stray(self, hierarchy: str, path: str) -> bool:
        # In one that was made since, by whoever, all are at its top.
        return hierarchy not in self._ignore and self._own.get(hierarchy, "/") != path

    def directories(self, tids: Collection[int]) -> list[CgroupDirectory]:
        """Describe the cgroups that were found, with those above and below them; ``tids``: who belongs to the job."""
        found: dict[Place, CgroupDirectory] = {}
        for hierarchy, path in self._used:
            with hierarchy_root(hierarchy) as root:
                parts = path.strip("/").split("/")
                above = [_join(root, "/".join(parts[:depth])) for depth in range(1, len(parts))]
                below = [one for one in cgroupfs.walk(_join(root, path)) if _is_of_job(one, tids)]
                for directory in (*above, *below[:_MOST]):
                    place = (hierarchy, "/" + os.path.relpath(directory, root))
                    if place not in found:
                        found[place] = describe(directory, *place, _is_setting)
        return list(found.values())


def _is_of_job(directory: str, tids: Collection[int]) -> bool:
    return all(tid in tids for tid in cgroupfs.read_threads(directory))


def _join(root: str, path: str) -> str:
    return os.path.normpath(f"{root}/{path.lstrip('/')}")


def describe(directory: str, hierarchy: str, path: str, is_setting: Callable[[str, int], bool]) -> CgroupDirectory:
    """Describe a cgroup by its directory; ``is_setting`` judges a file by name and mode.

    What a cgroup of version 2 is and hands down (cgroup.type, cgroup.subtree_control) is kept, too.
    """
    status = os.stat(directory)
    files = []
    for name in sorted(os.listdir(directory)):
        full = f"{directory}/{name}"
        found = os.stat(full)
        if stat.S_ISREG(found.st_mode):
            value = _read(full) if is_setting(name, found.st_mode) or name in _NATURE else None
            files.append(CgroupFile(name, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, value))
    return CgroupDirectory(hierarchy, path, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, files)


def _is_setting(name: str, mode: int) -> bool:
    if name == _DEVICES:
        return True
    return mode & 0o600 == 0o600 and name not in _MEMBERS and not any(word in name for word in _COUNTERS)


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:  # one that this machine has switched off
        return None


class PlaceMaker:
    """Makes the cgroups of an image, and puts threads into them."""

    def __init__(self, directories: Sequence[CgroupDirectory]) -> None:
        self._directories = directories
        self._made: list[Place] = []
        self._done = False

    def put(self, places: Iterable[Place], tid: HostTid) -> None:
        """Move a thread to where it was."""
        for hierarchy, path in places:
            if not self._done:
                self._done = True
                for directory in self._directories:
                    self._make(directory)
            with hierarchy_root(hierarchy) as root:
                write_setting(f"{_join(root, inside_only(path))}/tasks", str(tid))

    def undo(self) -> None:
        """Remove what was made, as far as it is empty."""
        for hierarchy, path in reversed(self._made):
            with contextlib.suppress(OSError), hierarchy_root(hierarchy) as root:
                os.rmdir(_join(root, path))

    def _make(self, wanted: CgroupDirectory) -> None:
        with hierarchy_root(wanted.hierarchy) as root:
            directory = _join(root, inside_only(wanted.path))
            try:
                os.mkdir(directory)
            except FileExistsError:
                return  # with settings of its own
            except OSError as error:
                raise CannotHonour(
                    f"the cgroup {wanted.path} of the hierarchy {wanted.hierarchy} cannot be made: {error.strerror}"
                ) from error
            self._made.append((wanted.hierarchy, wanted.path))
            apply(directory, wanted)


def apply(directory: str, wanted: CgroupDirectory) -> None:
    """Give a cgroup its settings and owners."""
    for file in wanted.files:
        file = msgspec.structs.replace(file, value=None) if file.name in _NATURE else file
        _settle(f"{directory}/{os.path.basename(file.name)}", file)
    _own(directory, wanted.mode, wanted.uid, wanted.gid)


def inside_only(path: str) -> str:
    """Return the path of a cgroup, unless it leads out of where it belongs."""
    if ".." in path.split("/"):
        raise CannotHonour(f"the image names a cgroup {path}, which is none")
    return path


def _settle(path: str, wanted: CgroupFile) -> None:
    if not os.path.exists(path):
        return
    if wanted.value is not None and (now := _read(path)) is not None and now != wanted.value:
        if wanted.name == _DEVICES:
            _set_devices(os.path.dirname(path), wanted.value)
        else:
            for line in wanted.value.splitlines():
                write_setting(path, line)
    _own(path, wanted.mode, wanted.uid, wanted.gid)


def _set_devices(directory: str, value: str) -> None:
    write_setting(f"{directory}/devices.deny", "a")
    for line in value.splitlines():
        write_setting(f"{directory}/devices.allow", "a" if line.startswith("a ") else line)


def _own(path: str, mode: int, uid: int, gid: int) -> None:
    now = os.stat(path)
    if (now.st_uid, now.st_gid) != (uid, gid):
        os.chown(path, uid, gid)
    if stat.S_IMODE(now.st_mode) != mode:
        os.chmod(path, mode)


def write_setting(path: str, text: str) -> None:
    """Write a file of a cgroup; raise CannotHonour if the kernel does not take it."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise CannotHonour(f"{path} cannot be set to {text!r}: {error.strerror}") from error
