from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from orchestrator.linux.mountinfo import cgroup1_mount, cgroup2_mount, parse_mountinfo, read_mountinfo

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def test_mounts_agree_with_psutil() -> None:
    # psutil leaves the word for "no source" out
    ours = {(mount.source.removeprefix("none"), mount.mountpoint, mount.fstype) for mount in read_mountinfo()}
    theirs = {(entry.device, entry.mountpoint, entry.fstype) for entry in psutil.disk_partitions(all=True)}
    assert theirs <= ours
    assert ours
    root = next(mount for mount in read_mountinfo() if mount.mountpoint == "/")
    assert os.makedev(root.major, root.minor) == os.stat("/").st_dev


_MOUNTER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
target = os.fsencode(sys.argv[1])
for call in (
    lambda: libc.unshare(0x00020000),
    lambda: libc.mount(b"none", b"/", None, ctypes.c_ulong(0x44000), None),
    lambda: libc.mount(b"a # source", target, b"tmpfs", ctypes.c_ulong(6), b"size=8k"),
    lambda: libc.mount(b"none", target, None, ctypes.c_ulong(0x100000), None),
):
    if call() != 0:
        raise OSError(ctypes.get_errno(), "mount")
print(flush=True)
os.read(0, 1)
"""


@root_only
def test_a_mount_with_a_nasty_name(tmp_path: Path) -> None:
    target = os.path.join(os.fsencode(tmp_path), b"a b\tc\nd\\e\\040 - \xff")
    os.mkdir(target)
    with subprocess.Popen(
        [sys.executable, "-c", _MOUNTER, target], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        mounts = read_mountinfo(process.pid)
        process.kill()
    mount = next(mount for mount in mounts if os.fsencode(mount.mountpoint) == target)
    assert mount.source == "a # source"
    assert mount.fstype == "tmpfs"
    assert mount.root == "/"
    assert {"nosuid", "nodev", "rw"} <= set(mount.options.split(","))
    assert "size=8k" in mount.super_options
    assert [field.partition(":")[0] for field in mount.fields] == ["shared"]
    assert mount.parent in {other.id for other in mounts}
    assert not any(os.fsencode(mount.mountpoint) == target for mount in read_mountinfo())


def test_parse_mountinfo_with_optional_fields_and_an_empty_source() -> None:
    raw = (
        b"36 35 98:0 /m\\134nt\\0402 /mnt rw,noatime shared:1 master:3 propagate_from:2 - ext3 /dev/root rw,a=b\n"
        b"37 35 0:7 / /x ro - tmpfs  rw\n"
        b"38 35 0:8 - /- rw unbindable - fuse.x - rw,a=- b\n"
    )
    first, second, third = parse_mountinfo(raw)
    assert first == (
        36, 35, 98, 0, "/m\\nt 2", "/mnt", "rw,noatime", ("shared:1", "master:3", "propagate_from:2"),
        "ext3", "/dev/root", "rw,a=b",
    )  # fmt: skip
    assert (second.fields, second.source, second.super_options) == ((), "", "rw")
    assert (third.root, third.mountpoint, third.fields, third.source) == ("-", "/-", ("unbindable",), "-")
    assert third.super_options == "rw,a=- b"


def test_cgroup_mounts() -> None:
    unified = cgroup2_mount()
    types = {mount.fstype for mount in read_mountinfo()}
    assert (unified is not None) == ("cgroup2" in types)
    if unified is not None:
        assert os.path.exists(f"{unified}/cgroup.procs")
        assert os.path.exists(f"{unified}/cgroup.controllers")
    freezer = cgroup1_mount("freezer")
    if freezer is not None:
        assert os.path.exists(f"{freezer}/tasks")
    assert cgroup1_mount("no-such-controller") is None
