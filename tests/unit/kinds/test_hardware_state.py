"""State that this machine's processor or kernel may not have: told from what the kernel would show of it."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from typing import Any

import pytest

from harness import records
from orchestrator.errors import CannotHonour
from orchestrator.ids import HostPid, ObjectId, Pid
from orchestrator.kinds.memory import capture
from orchestrator.kinds.memory.rebuild import Inherited, Span, rebuild_memory, tell_merging
from orchestrator.kinds.memory.record import AddressSpace, Vma
from orchestrator.kinds.scope import Scope
from orchestrator.kinds.task import numa, refused, speculation, traps
from orchestrator.kinds.task.attributes import (
    ProcessAttributes,
    ask_thread,
    slots_asked_for,
    tell_before_threads,
    tell_thread_before_credentials,
)
from orchestrator.linux import ptrace
from orchestrator.linux.arch import x86_64
from orchestrator.linux.proc_maps import parse_smaps_flags
from orchestrator.linux.proc_status import Status, read_status
from orchestrator.tape.build import Tape
from orchestrator.tape.here import play_here

_SMAPS = b"""\
%s-%s %s 00000000 00:00 0    %s
KernelPageSize:        4 kB
ProtectionKey:        %2d
VmFlags: rd wr mr mw me ac sd
"""
_NOTHING = capture.Mappers(lambda *_: ObjectId(0), lambda *_: ObjectId(0), lambda *_: ObjectId(0))


@pytest.fixture
def memory() -> Iterator[tuple[int, mmap.mmap]]:
    found = mmap.mmap(-1, 2 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    anchor = ctypes.c_char.from_buffer(found)
    yield ctypes.addressof(anchor), found
    del anchor
    found.close()


def _calls(tape: Tape) -> list[str]:
    return list(tape.entries())


def _status(**more: Any) -> Status:
    return read_status("self")._replace(**more)


def _captured(monkeypatch: pytest.MonkeyPatch, at: int, permissions: bytes, path: bytes, key: int) -> tuple[Scope, Vma]:
    raw = _SMAPS % (b"%x" % at, b"%x" % (at + 4096), permissions, path, key)
    monkeypatch.setattr(capture, "read_smaps_flags", lambda _: parse_smaps_flags(raw))
    pid = HostPid(os.getpid())
    scope = Scope({pid: Pid(pid)}, {pid: "test"})
    found = capture.capture_memory(
        pid, scope, _NOTHING, capture.Placer(scope.layout, alone=True), None, capture.Range(0, 0)
    )
    return scope, found.vmas[0] if found.vmas else Vma(0, 0, 0, False, "none")


def _rebuilt(*vmas: Vma) -> AddressSpace:
    return records.address_space(1, vmas)


@pytest.mark.parametrize(("key", "permissions", "refused_"), [(0, b"rw-p", 0), (3, b"rw-p", 1), (1, b"--xp", 0)])
def test_keys_of_memory_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, memory: tuple[int, mmap.mmap], key: int, permissions: bytes, refused_: int
) -> None:
    scope, _ = _captured(monkeypatch, memory[0], permissions, b"", key)
    assert len(scope.blockers.unsupported) == refused_
    if refused_:
        assert "its protection key 3 cannot be set again" in str(scope.blockers.unsupported[0])


def test_allocated_keys_segments_and_tags_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refused, "machine_has_keys", lambda: True)
    tape = Tape("test")
    answer = refused.ask_refused(tape)
    assert sum(line.startswith("pkey_mprotect") for line in _calls(tape)) == 15
    assert answer(play_here(tape)) == []  # we have allocated none, and have no segments either
    pid = HostPid(1)
    scope = Scope({pid: Pid(1)}, {pid: "test"})
    refused.note_refused(scope, pid, [], _status(untag_mask=_status().untag_mask & ~(0x3F << 57)))
    assert [blocker.object for blocker in scope.blockers.unsupported] == ["memory"]


def test_segments_of_modify_ldt_are_found() -> None:
    pid = os.fork()
    if pid == 0:
        description = (ctypes.c_uint * 4)(0, 0x1000, 0xFFFFF, 0x51)
        libc = ctypes.CDLL(None, use_errno=True)
        made = libc.syscall(154, 1, description, 16)
        tape = Tape("test")
        answer = refused.ask_refused(tape)
        found = [what for what, _ in answer(play_here(tape))]
        os._exit(77 if made != 0 else 0 if found == ["local descriptor table"] else 1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == 77:
        pytest.skip("the kernel has no modify_ldt")
    assert status == 0


@pytest.mark.parametrize("path", [b"[anon:a name]", b"[anon_shmem:a name]"])
def test_names_of_memory_come_back(monkeypatch: pytest.MonkeyPatch, memory: tuple[int, mmap.mmap], path: bytes) -> None:
    _, vma = _captured(monkeypatch, memory[0], b"rw-p", path, 0)
    assert vma.name == "a name"
    tape = Tape("test")
    have = Inherited((), {}, Span(0x2000_0000, 0x2100_0000), 0x2080_0000, 0, None)
    rebuild_memory(tape, _rebuilt(vma), have, records.BACKINGS)
    assert any("prctl(PR_SET_VMA" in line or "prctl(1398164801" in line for line in _calls(tape))


def test_policies_of_mappings_as_the_kernel_shows_them(memory: tuple[int, mmap.mmap]) -> None:
    at, _ = memory
    libc = ctypes.CDLL(None, use_errno=True)
    node0 = (ctypes.c_ulong * 16)(1)
    if libc.syscall(237, ctypes.c_ulong(at), ctypes.c_ulong(4096), 2, node0, ctypes.c_ulong(1025), 0) != 0:
        pytest.skip("the kernel has no NUMA")
    for mode in (1, 2, 3, 5, 6, 2 | 1 << 15, 3 | 1 << 14):
        wanted = numa.MemoryPolicy(mode, b"\1")
        tape = Tape("test")
        numa.tell_mapping_policy(tape, at, 4096, wanted)
        play_here(tape)
        assert numa.read_policies(os.getpid())[at] == wanted


def test_policies_of_many_nodes() -> None:
    raw = b"7f00 bind=static|balancing:0-2,9 anon=1 N0=1\n7f01 weighted interleave:1 file=/a\\040b\n7f02 default\n"
    assert numa.parse_policies(raw) == {
        0x7F00: numa.MemoryPolicy(2 | 1 << 15 | 1 << 13, b"\x07\x02"),
        0x7F01: numa.MemoryPolicy(6, b"\x02"),
        0x7F02: numa.DEFAULT,
    }
    with pytest.raises(ValueError, match="1 lines, but 0"):
        numa.parse_policies(b"7f00 something new:0\n")


@pytest.fixture
def per_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose threads may choose."""
    monkeypatch.setattr(speculation, "own_state", lambda _: 1 | 2)


@pytest.mark.usefixtures("per_thread")
@pytest.mark.parametrize(
    ("bypass", "branch", "states"),
    [
        (b"thread force mitigated", b"conditional force disabled", (8, 8)),
        (b"thread mitigated", b"conditional disabled", (4, 4)),
        (b"thread vulnerable", b"conditional enabled", (2, 2)),
        (b"vulnerable", b"always enabled", (16, 0)),
        (b"not vulnerable", b"not affected", (0, 0)),
    ],
)
def test_speculation_as_status_tells_it(bypass: bytes, branch: bytes, states: tuple[int, int]) -> None:
    tape = Tape("test")
    answer = speculation.ask_speculation(tape, _status(store_bypass=bypass, indirect_branch=branch))
    assert _calls(tape)  # the flush of the cache is asked for
    wanted = (*states, 2)
    assert answer(play_here(tape))[:2] == states
    again = Tape("test")
    speculation.tell_speculation(again, wanted, (2, 2, 4))
    assert len(again) == sum(state not in (0, 2) for state in states) + 1


def test_a_machine_that_decides_itself_is_asked_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speculation, "own_state", lambda _: 2)
    tape = Tape("test")
    answer = speculation.ask_speculation(tape, _status(store_bypass=b"vulnerable", indirect_branch=b"always enabled"))
    assert not len(tape)
    assert answer(play_here(tape)) == speculation.MACHINE_DECIDES
    speculation.check_speculation((2, 2, 0))
    with pytest.raises(CannotHonour):
        speculation.check_speculation((8, 0, 0))
    monkeypatch.setattr(speculation, "own_state", lambda _: 4)  # guarded as a whole
    speculation.check_speculation((8, 0, 0))


@pytest.mark.parametrize("asked", [(1, 0x7000, 0x1000, 0x2000), (1, 0x7000, 0, 0), (2, 0x7000, 0x1000, 0x2000)])
def test_the_range_of_a_dispatch_is_what_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, asked: tuple[int, int, int, int]
) -> None:
    mode, selector, start, length = asked
    seen = (1, selector, start, length) if mode == 1 else (1, selector, start + length, (1 << 64) - length)
    monkeypatch.setattr(ptrace, "dispatch_configuration", lambda _: ptrace.DispatchConfiguration(*seen))
    monkeypatch.setattr(ptrace, "debug_register", lambda _tid, _number: 0)
    assert traps.read_traps(1) == traps.Traps(asked, None)


def test_features_and_locks_are_asked_for_again() -> None:
    tape = Tape("test")
    tell_before_threads(tape, ProcessAttributes(False, 1, 0, permitted_features=0x600E7), 0x200E7)
    assert _calls(tape) == ["arch_prctl(0x1023, 18)"]
    asking = Tape("test")
    answer = ask_thread(asking, _status(locked_features=(b"shstk", b"wrss")), b"x", io_flusher=True)
    wanted = answer(play_here(asking))
    assert (wanted.locked_features, wanted.io_flusher, wanted.cpuid) == (3, True, True)
    tape = Tape("test")
    tell_thread_before_credentials(tape, wanted, records.ATTRIBUTES)
    assert {"arch_prctl(0x5003, 3)", "prctl(57, 1, 0, 0, 0)"} <= {*_calls(tape)}


def test_segments_that_a_thread_uses_and_its_ports_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptrace, "has_regset", lambda _tid, kind: kind == ptrace.NT_386_IOPERM)
    pid = HostPid(1)
    scope = Scope({pid: Pid(1)}, {pid: "test"})
    registers = [0] * 27
    registers[x86_64.REGISTER_NAMES.index("gs")] = 12 << 3 | 3
    refused.note_privileged(scope, pid, 1, registers)
    assert len(scope.blockers.unsupported) == 2


@pytest.mark.parametrize(
    ("slots", "threads", "asked_for"),
    [(-22, 1, 0), (0, 1, 0), (0, 2, -1), (16, 2, 0), (1 << 20, 2, 1 << 20), (4, 1, 4)],
)
def test_slots_of_futexes_that_were_asked_for(slots: int, threads: int, asked_for: int) -> None:
    assert slots_asked_for(slots, threads) == asked_for


def test_memory_that_was_taken_out_of_merging_stays_out() -> None:
    vmas = [Vma(0x1000, 0x2000, 3, False, "anonymous", flags=("mg",)), Vma(0x2000, 0x3000, 3, False, "anonymous")]
    tape = Tape("test")
    tell_merging(tape, _rebuilt(*vmas))
    assert len(tape) == 2
    assert "madvise(0x2000" in _calls(tape)[1]
