from __future__ import annotations

import pytest

from orchestrator.linux.mountinfo import Mount, parse_mountinfo
from orchestrator.namespaces.mount_delta import compare_mounts, mount_flags, super_data, visible_at
from orchestrator.namespaces.propagation import base_propagation, propagation_of

HOST = b"""\
20 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
21 20 0:21 / /proc rw,nosuid shared:2 - proc proc rw
22 21 0:30 / /proc/sys/fs/binfmt_misc rw shared:9 - binfmt_misc none rw
23 20 0:22 / /dev rw shared:3 - tmpfs dev rw,size=100k
24 23 0:23 / /dev/pts rw,nosuid shared:4 - devpts devpts rw,gid=5,mode=620,ptmxmode=000
25 20 254:1 /data /srv rw shared:5 - ext4 /dev/vdb rw
"""


def mounts(extra: str = "", host: bytes = HOST, fields: str = "") -> list[Mount]:
    """Return the host's mounts as a new namespace has them (``fields`` instead of "shared:N"), and some more."""
    found = [
        mount._replace(id=mount.id + 100, parent=mount.parent + 100, fields=tuple(fields.split()))
        for mount in parse_mountinfo(host)
    ]
    return found + parse_mountinfo(extra.encode())


def host() -> list[Mount]:
    return parse_mountinfo(HOST)


def test_a_copy_of_the_namespace_does_not_differ() -> None:
    delta = compare_mounts(host(), mounts())
    assert (delta.added, delta.removed, delta.changed, delta.refused) == ([], [], [], [])
    assert len(delta.common) == 6


def test_a_bind_mount_is_found_through_the_mount_that_shows_its_source() -> None:
    delta = compare_mounts(host(), mounts("300 120 254:1 /data/web/a /mnt rw - ext4 /dev/vdb rw\n"))
    assert [(added.bind_from, added.from_job) for added in delta.added] == [("/srv/web/a", False)]


def test_a_bind_mount_of_what_is_nowhere_mounted_is_refused() -> None:
    delta = compare_mounts(host(), mounts("300 120 254:1 /other /mnt rw - ext4 /dev/vdb rw\n"))
    assert [refused.mountpoint for refused in delta.refused] == ["/mnt"]


def test_a_bind_mount_of_something_covered_is_refused() -> None:
    covered = HOST + b"40 20 0:50 / /srv rw - tmpfs none rw\n"
    job = mounts("300 120 254:1 /data/web /mnt rw - ext4 /dev/vdb rw\n", covered)
    assert [refused.mountpoint for refused in compare_mounts(parse_mountinfo(covered), job).refused] == ["/mnt"]


def test_a_part_of_the_jobs_own_tmpfs_is_bound_from_there() -> None:
    delta = compare_mounts(
        host(),
        mounts("300 120 0:60 / /a rw - tmpfs none rw\n301 300 0:60 /x /a/y ro,nosuid - tmpfs none rw\n"),
    )
    assert [(a.mount.mountpoint, a.bind_from, a.from_job) for a in delta.added] == [
        ("/a", None, False),
        ("/a/y", "/a/x", True),
    ]


def test_parents_are_mounted_before_their_children() -> None:
    extra = "200 300 0:61 / /a/b rw - tmpfs none rw\n300 120 0:60 / /a rw - tmpfs none rw\n"
    assert [a.mount.mountpoint for a in compare_mounts(host(), mounts(extra)).added] == ["/a", "/a/b"]


def test_what_the_job_unmounted_is_removed_deepest_first() -> None:
    job = [mount for mount in mounts() if not mount.mountpoint.startswith("/dev")]
    assert compare_mounts(host(), job).removed == ["/dev/pts", "/dev"]


def test_an_unmount_from_below_another_mount_is_refused() -> None:
    stacked = HOST + b"40 24 0:50 / /dev/pts rw - devpts devpts rw\n"
    job = [mount for mount in mounts("", stacked) if mount.id != 124]
    assert [refused.mountpoint for refused in compare_mounts(parse_mountinfo(stacked), job).refused] == ["/dev/pts"]


def test_other_options_are_noted() -> None:
    job = [mount._replace(options="ro,noexec") if mount.mountpoint == "/srv" else mount for mount in mounts()]
    assert [mount.mountpoint for mount in compare_mounts(host(), job).changed] == ["/srv"]


def test_submounts_of_proc_that_came_with_a_new_proc_are_no_difference() -> None:
    extra = "300 121 0:70 / /proc rw - proc proc rw\n301 300 0:30 / /proc/sys/fs/binfmt_misc rw - binfmt_misc none rw\n"
    assert [added.mount.mountpoint for added in compare_mounts(host(), mounts(extra)).added] == ["/proc"]


def test_a_root_of_its_own_is_refused_alone() -> None:
    job = parse_mountinfo(b"300 299 0:80 / / rw - overlay overlay rw\n301 300 0:81 / /proc rw - proc proc rw\n")
    delta = compare_mounts(host(), job)
    assert [refused.mountpoint for refused in delta.refused] == ["/"]
    assert delta.removed == []


@pytest.mark.parametrize(
    "line", ["overlay overlay rw,lowerdir=/x", "ext4 /dev/loop0 rw", "fuse.x x rw", "nsfs nsfs rw"]
)
def test_types_that_cannot_be_made_again_are_refused(line: str) -> None:
    delta = compare_mounts(host(), mounts(f"300 120 0:90 / /mnt rw - {line}\n"))
    assert [refused.mountpoint for refused in delta.refused] == ["/mnt"]


def test_cgroup_mounts_of_a_cgroup_namespace_are_made_again_inside() -> None:
    shared = HOST + b"40 20 0:50 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    job = mounts("300 120 0:50 /job /mnt rw - cgroup2 cgroup2 rw\n", shared)
    sources = [
        compare_mounts(parse_mountinfo(shared), job, own_cgroups=own).added[0].bind_from for own in (False, True)
    ]
    assert sources == ["/sys/fs/cgroup/job", None]


def test_the_topmost_mount_is_visible() -> None:
    stacked = HOST + b"40 24 0:50 / /dev/pts rw - devpts devpts rw\n41 20 0:51 / /dev rw - tmpfs over rw\n"
    found = parse_mountinfo(stacked)
    assert visible_at(found, "/dev/pts").id == 41
    assert visible_at(found, "/srv/x/y").id == 25
    assert visible_at(found, "/").id == 20


def test_options_become_flags() -> None:
    assert mount_flags("rw,relatime") == 1 << 21
    assert mount_flags("ro,nosuid,nodev,noexec,noatime") == 1 | 2 | 4 | 8 | 1024
    assert mount_flags("rw") == 1 << 24
    with pytest.raises(ValueError, match="idmapped"):
        mount_flags("rw,idmapped")


def test_super_options_become_data() -> None:
    tmpfs, devpts, cgroup = parse_mountinfo(
        b"1 0 0:1 / /a rw - tmpfs t rw,size=10k,mode=755,inode64,seclabel\n"
        b"2 0 0:2 / /b rw - devpts t rw,gid=5,mode=620,ptmxmode=000\n"
        b"3 0 0:3 / /c rw - cgroup t rw,name=systemd,release_agent=/x\n"
    )
    assert [super_data(mount) for mount in (tmpfs, devpts, cgroup)] == [
        "size=10k,mode=755",
        "gid=5,mode=620,ptmxmode=000",
        "name=systemd",
    ]


@pytest.mark.parametrize(
    ("fields", "base"),
    [("", "private"), ("master:7", "slave"), ("shared:70 master:7", "slave+shared"), ("shared:70", "shared")],
)
def test_one_change_of_the_tree_explains_alike_mounts(fields: str, base: str) -> None:
    common = compare_mounts(host(), mounts(fields=fields)).common
    found = base_propagation(common)
    assert (found.base, found.deviations, found.impossible) == (base, [], [])


def test_peers_of_the_machine_are_recognised() -> None:
    common = [(mount, mount) for mount in host()]
    assert base_propagation(common).base == "host"
    assert propagation_of(host()[0]) == "shared"


def test_deviations_and_impossible_links_are_listed() -> None:
    private = parse_mountinfo(HOST.replace(b" shared:5", b""))
    job = mounts(fields="master:1")
    job[3] = job[3]._replace(fields=("shared:99",))
    found = base_propagation(compare_mounts(private, job).common)
    assert found.base == "slave"
    assert found.deviations == [("/dev", "shared")]
    assert found.impossible == ["/srv"]  # a slave of something that is no more
