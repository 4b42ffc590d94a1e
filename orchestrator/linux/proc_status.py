"""/proc/PID/status: ids, signal sets, capabilities."""

from __future__ import annotations

from typing import NamedTuple

from orchestrator.linux.procfs import read_file

Ids = tuple[int, int, int, int]
_ALL = (1 << 64) - 1


class Status(NamedTuple):
    """The fields of proc_pid_status(5). Ids read as the reader's user and PID namespaces see them.

    ``uids`` and ``gids`` are real, effective, saved, filesystem. The ``ns_`` tuples begin with the
    PID namespace of the procfs instance and end with the task's own. A task without memory (a zombie,
    a kernel thread) has ``vm_rss_kib`` 0.
    """

    name: bytes
    umask: int
    state: str
    tgid: int
    pid: int
    ppid: int
    tracer_pid: int
    uids: Ids
    gids: Ids
    groups: tuple[int, ...]
    ns_tgid: tuple[int, ...]
    ns_pid: tuple[int, ...]
    ns_pgid: tuple[int, ...]
    ns_sid: tuple[int, ...]
    threads: int
    sig_pnd: int
    shd_pnd: int
    sig_blk: int
    sig_ign: int
    sig_cgt: int
    cap_inh: int
    cap_prm: int
    cap_eff: int
    cap_bnd: int
    cap_amb: int
    no_new_privs: bool
    seccomp: int
    seccomp_filters: int
    vm_rss_kib: int
    vm_locked_kib: int
    core_dumping: bool
    thp_enabled: bool
    store_bypass: bytes = b""
    """Speculation_Store_Bypass, in the kernel's words; likewise the next."""
    indirect_branch: bytes = b""
    untag_mask: int = _ALL
    """Which bits of an address count (LAM); all, or where the kernel does not say."""
    locked_features: tuple[bytes, ...] = ()
    """Shadow-stack features that the thread may not switch any more: "shstk", "wrss"."""


def _ids(value: bytes) -> Ids:
    real, effective, saved, filesystem = value.split()
    return int(real), int(effective), int(saved), int(filesystem)


def _numbers(value: bytes) -> tuple[int, ...]:
    return tuple(map(int, value.split()))


def parse_status(raw: bytes) -> Status:
    """Parse a status file. The kernel writes newline and backslash in the name as two characters."""
    field = dict([line.split(b":", 1) for line in raw.split(b"\n") if line])
    get = field.get
    name = field[b"Name"][1:]
    if b"\\" in name:
        name = name.replace(b"\\n", b"\n") if b"\\\\" not in name else _unescape(name)
    rss = get(b"VmRSS")
    return Status(
        name,
        # A task whose fs_struct is gone (a zombie) has no Umask line.
        int(get(b"Umask", b"0"), 8),
        field[b"State"].strip()[:1].decode(),
        int(field[b"Tgid"]),
        int(field[b"Pid"]),
        int(field[b"PPid"]),
        int(field[b"TracerPid"]),
        _ids(field[b"Uid"]),
        _ids(field[b"Gid"]),
        _numbers(field[b"Groups"]),
        _numbers(field[b"NStgid"]),
        _numbers(field[b"NSpid"]),
        _numbers(field[b"NSpgid"]),
        _numbers(field[b"NSsid"]),
        int(field[b"Threads"]),
        int(field[b"SigPnd"], 16),
        int(field[b"ShdPnd"], 16),
        int(field[b"SigBlk"], 16),
        int(field[b"SigIgn"], 16),
        int(field[b"SigCgt"], 16),
        int(field[b"CapInh"], 16),
        int(field[b"CapPrm"], 16),
        int(field[b"CapEff"], 16),
        int(field[b"CapBnd"], 16),
        int(field[b"CapAmb"], 16),
        int(field[b"NoNewPrivs"]) != 0,
        int(get(b"Seccomp", b"0")),
        int(get(b"Seccomp_filters", b"0")),
        0 if rss is None else int(rss.split()[0]),
        int(get(b"VmLck", b"0").split()[0]),
        get(b"CoreDumping", b"0").strip() == b"1",
        get(b"THP_enabled", b"0").strip() == b"1",
        get(b"Speculation_Store_Bypass", b"").strip(),
        get(b"SpeculationIndirectBranch", b"").strip(),
        int(get(b"untag_mask", b"-1"), 16) & _ALL,
        tuple(get(b"x86_Thread_features_locked", b"").split()),
    )


def _unescape(name: bytes) -> bytes:
    return b"\\".join(part.replace(b"\\n", b"\n") for part in name.split(b"\\\\"))


def read_status(pid: int | str, tid: int | None = None) -> Status:
    """Read the status of a process (or "self"), or of one of its threads."""
    return parse_status(read_file(f"/proc/{pid}/status" if tid is None else f"/proc/{pid}/task/{tid}/status"))
