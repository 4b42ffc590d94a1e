"""Probes of what a job stands in: capabilities, cgroups, sockets."""

from __future__ import annotations

import errno
import os
import signal
import socket
from functools import partial

from orchestrator.doctor.probe import Probe, bystander
from orchestrator.freezer import CgroupRef, make_freezer
from orchestrator.linux import capabilities, cgroupfs, clone, sockdiag
from orchestrator.linux.mountinfo import cgroup1_mount, cgroup2_mount

_TCP_REPAIR = 19
_FREEZE_SECONDS = 2.0


def _machine() -> None:
    if os.uname().machine != "x86_64":
        raise LookupError(f"this is {os.uname().machine}; orch knows x86_64")


def _capability(number: int) -> None:
    if not capabilities.has(number):
        raise PermissionError(errno.EPERM, "not in our effective set")


def _freezer(version: int) -> None:
    mount = cgroup2_mount() if version == 2 else cgroup1_mount("freezer")
    if mount is None:
        raise LookupError("not mounted")
    path = f"{mount}/orch-doctor-{os.getpid()}"
    cgroupfs.create(path)
    try:
        with bystander() as pid:
            cgroupfs.attach(path, pid)
            freezer = make_freezer(CgroupRef(2 if version == 2 else 1, path))
            freezer.freeze(_FREEZE_SECONDS)
            freezer.leave()
    finally:
        cgroupfs.remove_tree(path)


def _born_in_a_cgroup() -> None:
    mount = cgroup2_mount()
    if mount is None:
        raise LookupError("cgroup v2 is not mounted")
    path = f"{mount}/orch-doctor-{os.getpid()}"
    cgroupfs.create(path)
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            pid = clone.fork(cgroup=directory)
        finally:
            os.close(directory)
        if pid == 0:
            while True:
                signal.pause()
        try:
            cgroupfs.kill(path)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            raise
        finally:
            os.waitpid(pid, 0)
    finally:
        cgroupfs.remove_tree(path)


def _tcp_repair() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
        probe.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 0)


def _socket_diag() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        if os.fstat(ours.fileno()).st_ino not in sockdiag.unix_sockets():
            raise LookupError("it does not list a socket that is there")


_LOST_WITHOUT = {
    capabilities.CAP_SYS_ADMIN: "nothing can be checkpointed or restored",
    capabilities.CAP_SYS_PTRACE: "processes of other users cannot be held",
    capabilities.CAP_CHECKPOINT_RESTORE: "CAP_SYS_ADMIN is used in its place",
    capabilities.CAP_SYS_RESOURCE: "hard limits above orch's own are not restored",
    capabilities.CAP_SETUID: "processes of other users cannot be restored",
    capabilities.CAP_SETGID: "processes of other groups cannot be restored",
    capabilities.CAP_SETPCAP: "capability bounding sets cannot be restored",
    capabilities.CAP_KILL: "processes of other users get no signals",
    capabilities.CAP_CHOWN: "unlinked files of other users cannot be restored",
    capabilities.CAP_DAC_OVERRIDE: "files that their owner may not open any more cannot be opened again",
    capabilities.CAP_SYS_CHROOT: "processes with another root directory cannot be restored",
    capabilities.CAP_MKNOD: "device files of private mounts cannot be restored",
    capabilities.CAP_NET_ADMIN: "networks and TCP connections cannot be restored",
    capabilities.CAP_NET_RAW: "raw and packet sockets cannot be restored",
    capabilities.CAP_SYS_NICE: "priorities above the default cannot be restored",
    capabilities.CAP_IPC_LOCK: "locked memory beyond the limit cannot be restored",
}
_ESSENTIAL = {capabilities.CAP_SYS_ADMIN}

PROBES = (
    Probe("x86-64", _machine, "orch has no machine code for this architecture", essential=True),
    *(
        Probe(capabilities.NAMES[number], partial(_capability, number), lost, essential=number in _ESSENTIAL)
        for number, lost in _LOST_WITHOUT.items()
    ),
    Probe("cgroup v2 freezer", partial(_freezer, 2), "jobs are frozen by the v1 freezer, more slowly"),
    Probe("cgroup v1 freezer", partial(_freezer, 1), "jobs in cgroups of v1 cannot be frozen"),
    Probe(
        "CLONE_INTO_CGROUP and cgroup.kill", _born_in_a_cgroup, "jobs cannot be started in or ended with a cgroup of v2"
    ),
    Probe("TCP_REPAIR", _tcp_repair, "TCP connections cannot be saved or restored"),
    Probe("socket diagnosis", _socket_diag, "sockets cannot be saved"),
)
