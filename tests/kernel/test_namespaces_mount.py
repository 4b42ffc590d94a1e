"""Mount namespaces: what the job has mounted and unmounted."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.namespaces import (
    MS_BIND,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    MS_SHARED,
    depot_of,
    described,
    libc,
    mount,
    ok,
    process,
    store,
    surveyed,
    target,
)
from harness.replay import Process, Target
from orchestrator.kinds.scope import Scope
from orchestrator.linux import nsfs
from orchestrator.linux.mountinfo import read_mountinfo
from orchestrator.linux.nsfs import CLONE_NEWNS
from orchestrator.namespaces.inside import inside
from orchestrator.namespaces.registry import NAMESPACE_KINDS
from orchestrator.tape.build import Tape

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


def mounts_of(process: Process) -> list[tuple[str, ...]]:
    """List the mounts of a process without the numbers, which differ."""
    return [
        (m.mountpoint, m.root, m.fstype, m.source, m.options, m.super_options, *(f.partition(":")[0] for f in m.fields))
        for m in read_mountinfo(process.pid)
    ]


def own_mounts() -> None:
    nsfs.unshare(CLONE_NEWNS)
    mount("none", "/", "", MS_REC | MS_PRIVATE)


def play_mounts(target: Target, record: Any, image: Path | None = None, scope: Scope | None = None) -> None:
    kind = NAMESPACE_KINDS["mnt"]
    assert kind.fresh is not None
    assert kind.rebuild is not None
    assert kind.fill is not None
    tape = Tape("mounts")
    kind.fresh(tape)
    kind.rebuild(record, tape)
    target.play(tape)
    if image and scope:
        depot = depot_of(scope, image, target)
        kind.fill(record, depot)
        target.play(depot.tape)


def _portrait_of(root: str) -> dict[str, tuple[object, ...]]:
    """Describe a tree: everything that must be the same, times included."""
    found: dict[str, tuple[object, ...]] = {}
    inodes: dict[tuple[int, int], str] = {}
    for directory, names, files in os.walk(root):
        for name in ["", *sorted(files), *(n for n in names if os.path.islink(f"{directory}/{n}"))]:
            path = f"{directory}/{name}".rstrip("/")
            status = os.lstat(path)
            same_as = inodes.setdefault((status.st_dev, status.st_ino), path)
            content: object = os.readlink(path) if os.path.islink(path) else None
            if os.path.isfile(path) and not os.path.islink(path):
                content = (Path(path).read_bytes(), {n: os.getxattr(path, n) for n in os.listxattr(path)})
            found[path] = (
                same_as, status.st_mode, status.st_uid, status.st_gid, status.st_size if content else 0,
                status.st_atime_ns, status.st_mtime_ns, status.st_rdev, content,
            )  # fmt: skip
    return found


def portrait(process: Process, root: Path) -> Any:
    def look() -> Any:
        nsfs.unshare(CLONE_NEWNS)
        for m in read_mountinfo():
            if m.mountpoint.startswith(str(root)):
                mount("none", m.mountpoint, "", MS_REMOUNT | MS_BIND | 1024)  # looking shall not change access times
        return _portrait_of(str(root))

    return inside(process.pid, ["mnt"], look, Any)


def test_mounts_of_the_job_are_made_again(tmp_path: Path) -> None:
    for name in ("tmp", "bound", "ro", "pts", "devices", "gone"):
        (tmp_path / name).mkdir()
    (tmp_path / "bound" / "mark").write_text("here")
    (tmp_path / "a file").write_text("a file")
    (tmp_path / "bound" / "file").touch()

    def setup() -> None:
        own_mounts()
        mount(str(tmp_path / "bound"), tmp_path / "ro", "", MS_BIND)
        mount("none", tmp_path / "ro", "", MS_REMOUNT | MS_BIND | MS_RDONLY | 2 | 1 << 21)
        mount("scratch", tmp_path / "tmp", "tmpfs", 4 | 1024, "size=512k,mode=1750,uid=12")
        (tmp_path / "tmp" / "deep").mkdir()
        mount("none", tmp_path / "tmp", "", MS_SHARED)
        mount("proc", tmp_path / "tmp" / "deep", "proc", 8, "hidepid=2")
        mount("new pts", tmp_path / "pts", "devpts", 2, "newinstance,ptmxmode=666,mode=620")
        mount(str(tmp_path / "a file"), tmp_path / "bound" / "file", "", MS_BIND)
        mount("", tmp_path / "devices", "tmpfs", 0, "size=64k")
        mount(str(tmp_path / "tmp"), tmp_path / "gone", "", MS_BIND)
        # the tree was bound before it is hidden
        mount("hiding", tmp_path / "bound", "tmpfs", MS_RDONLY, "size=64k")

    with process(setup) as one, target(lambda: nsfs.unshare(CLONE_NEWNS)) as other:
        record = described(one, "mnt")
        assert len(record.mounts) == 8
        play_mounts(other, record)
        have = [m for m in mounts_of(other.process) if m[0].startswith(str(tmp_path))]
        wanted = [m for m in mounts_of(one) if m[0].startswith(str(tmp_path))]
        assert sorted(have) == sorted(wanted)
        assert other.process.fds() == []
        root = f"/proc/{other.process.pid}/root{tmp_path}"
        assert Path(root, "ro/mark").read_text() == "here"
        assert Path(root, "tmp/deep/self").is_symlink()
        assert read_mountinfo(other.process.pid)[-1].mountpoint.startswith(str(tmp_path))


def test_mounts_that_the_job_has_unmounted_stay_away(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    mount("common", tmp_path / "a", "tmpfs", 0, "size=64k")
    try:
        mount("none", tmp_path / "a", "", MS_PRIVATE)
        (tmp_path / "a" / "b").mkdir()
        mount("below", tmp_path / "a" / "b", "tmpfs", 0, "size=64k")

        def setup() -> None:
            own_mounts()
            ok(libc.umount2(str(tmp_path / "a" / "b").encode(), 0))
            mount("none", tmp_path / "a", "", MS_REMOUNT | MS_BIND | MS_RDONLY)

        with process(setup) as one, target(lambda: nsfs.unshare(CLONE_NEWNS)) as other:
            record = described(one, "mnt")
            play_mounts(other, record)
            (have,) = [m for m in mounts_of(other.process) if m[0].startswith(str(tmp_path))]
            assert have[0] == str(tmp_path / "a")
            assert have[4].startswith("ro,")
    finally:
        while any(m.mountpoint.startswith(str(tmp_path)) for m in read_mountinfo()):
            ok(libc.umount2(str(tmp_path / "a" / "b").encode(), 2) if (tmp_path / "a/b").is_mount() else 0)
            ok(libc.umount2(str(tmp_path / "a").encode(), 2))


def test_the_contents_of_a_tmpfs_return(tmp_path: Path) -> None:
    at = tmp_path / "t"
    at.mkdir()

    def setup() -> None:
        own_mounts()
        mount("t", at, "tmpfs", 0, "size=32m")
        (at / "empty").mkdir(mode=0o2711)
        (at / "d" / "e").mkdir(parents=True)
        (at / "d" / "small").write_bytes(b"small")
        os.link(at / "d" / "small", at / "d" / "again")
        with open(at / "d" / "big", "wb") as file:
            file.seek(1 << 20)
            file.write(b"big" * 5000)
            file.truncate(3 << 20)
        os.chown(at / "d" / "big", 7, 8)
        os.chmod(at / "d" / "big", 0o6755)
        os.setxattr(at / "d" / "big", "trusted.colour", b"red")
        os.symlink("/nowhere", at / "link")
        os.mkfifo(at / "d" / "fifo", 0o610)
        os.mknod(at / "null", 0o020666, os.makedev(1, 3))
        socket.socket(socket.AF_UNIX).bind(str(at / "socket"))
        os.lchown(at / "link", 9, 10)
        hidden = at / "d" / "e" / "hidden"
        hidden.write_text("below another mount")
        mount("e", at / "d" / "e", "tmpfs", 0, "size=64k")
        (at / "d" / "e" / "visible").write_text("on it")
        for i, path in enumerate([at / "d" / "small", at / "d" / "big", at / "d", at, at / "empty"]):
            os.utime(path, ns=(10**18 + i, 10**18 + 1000 + i))
        os.utime(at / "link", ns=(5, 6), follow_symlinks=False)

    with process(setup) as one, target(lambda: nsfs.unshare(CLONE_NEWNS)) as other:
        with surveyed(one) as (scope, found):
            scope.blockers.raise_if_any()
            store(scope, tmp_path / "image")
            assert len(scope.copies) == 1
            play_mounts(other, found["mnt"].body, tmp_path / "image", scope)
        wanted, have = portrait(one, at), portrait(other.process, at)
        assert len(wanted) == 12
        assert have == wanted

        def look_below() -> str:
            ok(libc.umount2(str(at / "d" / "e").encode(), 2))
            return (at / "d" / "e" / "hidden").read_text()

        assert inside(other.process.pid, ["mnt"], look_below, str) == "below another mount"
        assert other.process.fds() == [900]


def test_a_readonly_tmpfs_is_filled_before_it_is_closed(tmp_path: Path) -> None:
    at = tmp_path / "t"
    at.mkdir()

    def setup() -> None:
        own_mounts()
        mount("t", at, "tmpfs", 0, "size=1m")
        (at / "big").write_bytes(b"x" * 100_000)
        mount("t", at, "", MS_REMOUNT | MS_RDONLY)

    with process(setup) as one, target(lambda: nsfs.unshare(CLONE_NEWNS)) as other:
        with surveyed(one) as (scope, found):
            store(scope, tmp_path / "image")
            play_mounts(other, found["mnt"].body, tmp_path / "image", scope)
        assert portrait(other.process, at) == portrait(one, at)
        (have,) = [m for m in mounts_of(other.process) if m[0] == str(at)]
        assert have in mounts_of(one)


def test_a_second_generation_has_no_more_mounts_than_the_first(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()

    def setup() -> None:
        own_mounts()
        mount("proc", "/proc", "proc", 2 | 4 | 8)
        mount("t", tmp_path / "t", "tmpfs", 0, "size=64k")

    with process(setup) as one, target(lambda: nsfs.unshare(CLONE_NEWNS)) as second:
        first = described(one, "mnt")
        play_mounts(second, first)
        count = len(mounts_of(one))
        assert len(mounts_of(second.process)) == count
        again = described(second.process, "mnt")
        assert msgspec.structs.replace(again, mounts=[]) == msgspec.structs.replace(first, mounts=[])
        with target(lambda: nsfs.unshare(CLONE_NEWNS)) as third:
            play_mounts(third, again)
            assert mounts_of(third.process) == mounts_of(second.process)


def test_mounts_that_cannot_be_rebuilt_are_refused_by_name(tmp_path: Path) -> None:
    for name in ("lower", "upper", "work", "over", "deleted", "there"):
        (tmp_path / name).mkdir()

    def setup() -> None:
        own_mounts()
        mount("t", tmp_path / "there", "ramfs")
        mount(str(tmp_path / "deleted"), tmp_path / "over", "", MS_BIND)
        (tmp_path / "deleted").rmdir()

    with process(setup) as one, surveyed(one) as (scope, _):
        assert sorted(b.object for b in scope.blockers.unsupported) == [
            f"mount {tmp_path / 'over'}", f"mount {tmp_path / 'there'}",
        ]  # fmt: skip


def test_a_root_of_its_own_is_refused_by_name(tmp_path: Path) -> None:
    def setup() -> None:
        own_mounts()
        mount("root", tmp_path, "tmpfs", 0, "size=64k")
        (tmp_path / "old").mkdir()
        os.chdir(tmp_path)
        ok(libc.syscall(155, b".", b"old"))  # pivot_root

    with process(setup) as one, surveyed(one) as (scope, _):
        assert [blocker.object for blocker in scope.blockers.unsupported] == ["mount /"]
