from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.linux.proc_misc import list_pids, list_threads
from orchestrator.linux.proc_stat import parse_stat, read_stat
from orchestrator.linux.proc_status import parse_status, read_status
from orchestrator.linux.procfs import read_file

_PR_SET_NAME = 15
_prctl = ctypes.CDLL(None, use_errno=True).prctl


@pytest.fixture
def own_name() -> Iterator[None]:
    """Put the main thread's name back."""
    with open("/proc/self/comm", "rb") as file:
        before = file.read().rstrip(b"\n")
    yield
    _prctl(_PR_SET_NAME, before)


@pytest.mark.usefixtures("own_name")
@pytest.mark.parametrize(
    "name", [b"cat", b") R 1 2 3 (", b"a\nb", b"a\\nb", b"\\\\\n\\", b"((()))", b" ", b"\xff\xfe:\t", b"\nTgid:\t9"]
)
def test_any_name_of_a_task_is_read_back(name: bytes) -> None:
    assert _prctl(_PR_SET_NAME, name) == 0
    pid = os.getpid()
    stat, status = read_stat(pid), read_status(pid)
    assert (stat.comm, stat.pid, stat.ppid) == (name, pid, os.getppid())
    assert (status.name, status.pid, status.ppid) == (name, pid, os.getppid())
    assert read_stat(pid, threading.get_native_id()).comm == name
    assert read_status(pid, threading.get_native_id()).name == name


@settings(database=None)
@given(st.binary(max_size=15))
def test_parse_stat_finds_the_name(comm: bytes) -> None:
    numbers = b" ".join(b"%d" % number for number in range(4, 53))
    stat = parse_stat(b"17 (" + comm + b") S " + numbers + b"\n")
    # Each field of the sample holds its own number in proc_pid_stat(5).
    assert stat == (
        17, comm, "S", 4, 5, 6, 7, 8, 9, 20, 22, 26, 27, 28, 45, 46, 47, 48, 49, 50, 51, 52, 38, 19, 40, 41
    )  # fmt: skip


def test_own_stat() -> None:
    stat = read_stat(os.getpid())
    process = psutil.Process()
    assert stat == read_stat("self")._replace(state=stat.state)
    assert stat.pgrp == os.getpgid(0)
    assert stat.session == os.getsid(0)
    assert stat.num_threads == process.num_threads() == len(list_threads(os.getpid()))
    started = psutil.boot_time() + stat.starttime / os.sysconf("SC_CLK_TCK")
    assert started == pytest.approx(process.create_time(), abs=0.02)
    assert stat.exit_signal == signal.SIGCHLD
    assert stat.nice == os.nice(0)
    assert stat.policy == os.sched_getscheduler(0)
    assert stat.start_code < stat.end_code
    assert stat.start_data < stat.end_data
    environ = read_file("/proc/self/environ")
    assert ctypes.string_at(stat.env_start, stat.env_end - stat.env_start) == environ
    cmdline = read_file("/proc/self/cmdline")
    assert ctypes.string_at(stat.arg_start, stat.arg_end - stat.arg_start) == cmdline


def test_child_with_other_priorities(child: subprocess.Popen[bytes]) -> None:
    os.setpriority(os.PRIO_PROCESS, child.pid, 7)
    os.sched_setscheduler(child.pid, os.SCHED_BATCH, os.sched_param(0))
    stat = read_stat(child.pid)
    assert (stat.comm, stat.nice, stat.policy, stat.ppid) == (b"cat", 7, os.SCHED_BATCH, os.getpid())


def test_zombie(zombie: int) -> None:
    stat, status = read_stat(zombie), read_status(zombie)
    assert (stat.state, status.state) == ("Z", "Z")
    assert (stat.comm, status.name) == (b"true", b"true")
    assert status.vm_rss_kib == 0
    assert status.ns_pid == (zombie,)


def test_exit_code_of_a_zombie() -> None:
    with subprocess.Popen(["sh", "-c", "exit 5"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert os.waitstatus_to_exitcode(read_stat(process.pid).exit_code) == 5


def test_own_status() -> None:
    status = read_status(os.getpid())
    process = psutil.Process()
    umask = os.umask(0o027)
    try:
        assert read_status(os.getpid()).umask == 0o027
    finally:
        os.umask(umask)
    assert status.umask == umask
    assert status.uids[:3] == tuple(process.uids())
    assert status.gids[:3] == tuple(process.gids())
    assert sorted(status.groups) == sorted(os.getgroups())
    assert status.tgid == status.pid == os.getpid()
    assert status.ns_pid[-1] == status.ns_tgid[-1] == os.getpid()
    assert status.ns_pgid[-1] == os.getpgrp()
    assert status.ns_sid[-1] == os.getsid(0)
    assert status.threads == process.num_threads()
    assert status.tracer_pid == 0
    assert not status.core_dumping
    assert status.vm_rss_kib * 1024 == pytest.approx(process.memory_info().rss, rel=0.2)


def test_signal_sets() -> None:
    setting = """
import os, signal, threading
signal.signal(signal.SIGUSR2, signal.SIG_IGN)
signal.signal(signal.SIGWINCH, lambda *_: None)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGRTMAX})
os.kill(os.getpid(), signal.SIGUSR1)
signal.pthread_kill(threading.get_ident(), signal.SIGRTMAX)
print(flush=True)
os.read(0, 1)
"""
    with subprocess.Popen([sys.executable, "-c", setting], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        status = read_status(process.pid)
        process.kill()
    assert status.sig_blk >> signal.SIGUSR1 - 1 & 1
    assert status.sig_blk >> signal.SIGRTMAX - 1 == 1
    assert status.shd_pnd == 1 << signal.SIGUSR1 - 1
    assert status.sig_pnd == 1 << signal.SIGRTMAX - 1
    assert status.sig_ign >> signal.SIGUSR2 - 1 & 1
    assert status.sig_cgt >> signal.SIGWINCH - 1 & 1


def test_status_of_a_confined_child() -> None:
    confine = "import ctypes, os; prctl = ctypes.CDLL(None).prctl; prctl(38, 1, 0, 0, 0); prctl(41, 1, 0, 0, 0); "
    with subprocess.Popen(
        [sys.executable, "-c", confine + "print(flush=True); os.read(0, 1)"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        status = read_status(process.pid)
        process.kill()
    # 38 is PR_SET_NO_NEW_PRIVS, 41 PR_SET_THP_DISABLE.
    assert status.no_new_privs
    assert not status.thp_enabled
    assert status.ppid == os.getpid()
    assert status.seccomp_filters == 0
    assert not read_status("self").no_new_privs


def test_parse_status_with_groups_and_nested_namespaces() -> None:
    raw = (
        b"Name:\ta:\\n\\\\n\nUmask:\t0077\nState:\tt (tracing stop)\nTgid:\t70\nNgid:\t0\nPid:\t71\nPPid:\t1\n"
        b"TracerPid:\t69\nUid:\t0\t1\t2\t3\nGid:\t4\t5\t6\t4294967294\nFDSize:\t64\nGroups:\t4 20 65534 \n"
        b"NStgid:\t70\t3\t1\nNSpid:\t71\t4\t2\nNSpgid:\t70\t3\t0\nNSsid:\t70\t0\t0\nThreads:\t2\nSigQ:\t1/96365\n"
        b"SigPnd:\t0000000000000001\nShdPnd:\t8000000000000000\nSigBlk:\tffffffffffffffff\nSigIgn:\t0000000000001000\n"
        b"SigCgt:\t0000000180000000\nCapInh:\t0000000000000000\nCapPrm:\t000001fffeffffff\nCapEff:\t0000000000000001\n"
        b"CapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000002\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n"
    )
    status = parse_status(raw)
    assert status.name == b"a:\n\\n"
    assert (status.umask, status.state) == (0o077, "t")
    assert (status.tgid, status.pid, status.ppid, status.tracer_pid) == (70, 71, 1, 69)
    assert (status.uids, status.gids) == ((0, 1, 2, 3), (4, 5, 6, 4294967294))
    assert status.groups == (4, 20, 65534)
    assert (status.ns_tgid, status.ns_pid) == ((70, 3, 1), (71, 4, 2))
    assert (status.ns_pgid, status.ns_sid) == ((70, 3, 0), (70, 0, 0))
    assert (status.sig_pnd, status.shd_pnd, status.sig_blk) == (1, 1 << 63, 2**64 - 1)
    assert (status.sig_ign, status.sig_cgt) == (0x1000, 0x180000000)
    assert (status.cap_prm, status.cap_eff, status.cap_bnd) == (0x1FFFEFFFFFF, 1, 0x1FFFFFFFFFF)
    assert (status.cap_inh, status.cap_amb) == (0, 2)
    assert (status.no_new_privs, status.seccomp, status.seccomp_filters) == (True, 2, 3)


def test_every_process_here_is_understood() -> None:
    seen = 0
    for pid in list_pids():
        try:
            stat, status = read_stat(pid), read_status(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
        assert stat.pid == status.pid == pid
        assert stat.ppid == status.ppid
        assert stat.pgrp == status.ns_pgid[0]
        assert stat.session == status.ns_sid[0]
        seen += 1
    assert seen >= 2


def test_a_process_that_is_not_there() -> None:
    with subprocess.Popen(["true"]) as process:
        pass
    with pytest.raises(FileNotFoundError):
        read_stat(process.pid)
