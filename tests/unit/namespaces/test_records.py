from __future__ import annotations

import struct
import subprocess
import sys

import msgspec
import pytest

from orchestrator.errors import ImageVersion
from orchestrator.image.codec import decode_records
from orchestrator.linux import netlink, nsfs, sysvipc
from orchestrator.namespaces.kind import Namespace
from orchestrator.namespaces.net_sysctl import changed_sysctls
from orchestrator.namespaces.registry import NAMESPACE_KINDS, AnyNamespace
from orchestrator.namespaces.time import TimeNamespace, offsets, parse_offsets
from orchestrator.namespaces.uts import UtsNamespace
from orchestrator.tape.build import Tape


def test_every_kind_of_namespace_is_registered_once() -> None:
    assert {name: kind.clone_flag for name, kind in NAMESPACE_KINDS.items()} == nsfs.TYPES
    assert all(kind.record.__struct_config__.tag == name for name, kind in NAMESPACE_KINDS.items())


def test_bodies_are_decoded_by_their_tag() -> None:
    data = msgspec.msgpack.encode([Namespace("uts", True, UtsNamespace(b"\xff", b"")), Namespace("net", False)])
    uts, net = decode_records(data, list[AnyNamespace])
    assert uts.body == UtsNamespace(b"\xff", b"")
    assert net.body is None
    with pytest.raises(ImageVersion, match="'moon'"):
        decode_records(msgspec.msgpack.encode([{"kind": "moon", "private": True, "body": {"type": "moon"}}]),
                       list[AnyNamespace])  # fmt: skip


def test_the_kinds_import_neither_trio_nor_pyroute2() -> None:
    code = "import sys, orchestrator.namespaces.survey; print({'trio', 'pyroute2'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.parametrize("shift", [0, 1, -1, 5_000_000_000, -5_000_000_001, 999_999_999])
def test_offsets_move_the_clocks_to_where_they_were(shift: int) -> None:
    text = offsets(TimeNamespace(10**15 + shift, 10**15), 10**15, 10**15 + 7)
    assert parse_offsets(text) == {"monotonic": shift, "boottime": -7}
    assert all(0 <= int(line.split()[2]) < 10**9 for line in text.splitlines())


def test_offsets_as_the_kernel_prints_them() -> None:
    text = b"monotonic           1000         5\nboottime              -3 999999999\n"
    assert parse_offsets(text) == {"monotonic": 1000 * 10**9 + 5, "boottime": -2 * 10**9 - 1}


def test_sysvipc_lists() -> None:
    (segment,) = sysvipc.parse_segments(
        b"       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime"
        b"      dtime      ctime                   rss                  swap\n"
        b"-559038737          2  1600                 10000 22967 22967      1     3     4     5     6 1795265504"
        b"          0 1795265504                  4096                     0\n"
    )
    assert segment == sysvipc.Segment(-559038737, 2, 0o1600, 10000, 1, 3, 4, 5, 6)
    (semaphores,) = sysvipc.parse_semaphores(
        b"       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n"
        b"       119          5   640          3     1     2     3     4          9         10\n"
    )
    assert semaphores == sysvipc.SemaphoreSet(119, 5, 0o640, 3, 1, 2, 3, 4, 9)
    (queue,) = sysvipc.parse_queues(
        b"       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime"
        b"      ctime\n"
        b"       120          6   622          11          2     7     8     1     2     3     4          9         10"
        b"         11\n"
    )
    assert queue == sysvipc.MessageQueue(120, 6, 0o622, 2, 1, 2, 3, 4)


def test_netlink_attributes_are_split_and_left_out() -> None:
    fixed = b"12345678"
    payload = fixed + b"".join(
        struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
        for kind, value in ((1, b"abc"), (0x8002, b""), (3, b"defgh"))
    )
    assert list(netlink.attributes(payload, 8)) == [(1, b"abc"), (2, b""), (3, b"defgh")]
    assert list(netlink.attributes(netlink.without_attributes(payload, 8, {1}), 8)) == [(2, b""), (3, b"defgh")]
    with pytest.raises(ValueError, match="broken"):
        list(netlink.attributes(fixed + bytes(4), 8))


def test_only_settings_that_differ_from_a_new_namespace_are_kept() -> None:
    root = "/proc/sys/net/ipv4"
    new = {f"{root}/ip_forward": "0", f"{root}/conf/default/rp_filter": "1", f"{root}/neigh/lo/locktime": "100"}
    now = {
        f"{root}/ip_forward": "1",
        f"{root}/conf/e0/rp_filter": "1",
        f"{root}/conf/e1/rp_filter": "2",
        f"{root}/neigh/e0/locktime": "100",
        f"{root}/neigh/e1/locktime": "99",
    }
    assert changed_sysctls(now, new) == {
        f"{root}/ip_forward": "1",
        f"{root}/conf/e1/rp_filter": "2",
        f"{root}/neigh/e1/locktime": "99",
    }


def test_a_rebuild_prints_as_strace_would() -> None:
    tape = Tape()
    rebuild = NAMESPACE_KINDS["uts"].rebuild
    assert rebuild is not None
    rebuild(UtsNamespace(b"inner", b"(none)"), tape)
    assert list(tape.entries()) == ['sethostname("inner", 5)', 'setdomainname("(none)", 6)']
