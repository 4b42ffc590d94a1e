"""Print system calls as strace would."""

from __future__ import annotations

import mmap
import os
import signal
from collections.abc import Sequence

from orchestrator.linux.syscalls import SYSCALLS

_PROT = ((1, "PROT_READ"), (2, "PROT_WRITE"), (4, "PROT_EXEC"))
_MAP = (
    (0x01, "MAP_SHARED"), (0x02, "MAP_PRIVATE"), (0x10, "MAP_FIXED"), (0x20, "MAP_ANONYMOUS"),
    (0x100, "MAP_GROWSDOWN"), (0x2000, "MAP_LOCKED"), (0x4000, "MAP_NORESERVE"), (0x8000, "MAP_POPULATE"),
    (0x20000, "MAP_STACK"), (0x40000, "MAP_HUGETLB"), (0x100000, "MAP_FIXED_NOREPLACE"),
)  # fmt: skip
_CLONE = (
    (0x80, "CLONE_NEWTIME"), (0x100, "CLONE_VM"), (0x200, "CLONE_FS"), (0x400, "CLONE_FILES"),
    (0x800, "CLONE_SIGHAND"), (0x8000, "CLONE_PARENT"), (0x10000, "CLONE_THREAD"), (0x20000, "CLONE_NEWNS"),
    (0x2000000, "CLONE_NEWCGROUP"), (0x4000000, "CLONE_NEWUTS"), (0x8000000, "CLONE_NEWIPC"),
    (0x10000000, "CLONE_NEWUSER"), (0x20000000, "CLONE_NEWPID"), (0x40000000, "CLONE_NEWNET"),
)  # fmt: skip
_OPEN = tuple(
    (getattr(os, name), name)
    for name in (
        "O_WRONLY", "O_RDWR", "O_CREAT", "O_EXCL", "O_NOCTTY", "O_TRUNC", "O_APPEND", "O_NONBLOCK", "O_CLOEXEC",
        "O_DIRECTORY", "O_NOFOLLOW", "O_DIRECT", "O_PATH", "O_SYNC",
    )
)  # fmt: skip
_FCNTL = {0: "F_DUPFD", 1: "F_GETFD", 2: "F_SETFD", 3: "F_GETFL", 4: "F_SETFL", 8: "F_SETOWN", 10: "F_SETSIG",
          15: "F_SETOWN_EX", 1031: "F_SETPIPE_SZ", 1033: "F_ADD_SEALS"}  # fmt: skip
_MADVICE = {value: name for name, value in vars(mmap).items() if name.startswith("MADV_")} | {
    14: "MADV_HUGEPAGE", 15: "MADV_NOHUGEPAGE", 16: "MADV_DONTDUMP", 18: "MADV_WIPEONFORK",
    23: "MADV_POPULATE_WRITE", 102: "MADV_GUARD_INSTALL",
}  # fmt: skip
_PRCTL = {
    1: "PR_SET_PDEATHSIG", 4: "PR_SET_DUMPABLE", 8: "PR_SET_KEEPCAPS", 15: "PR_SET_NAME", 24: "PR_CAPBSET_DROP",
    28: "PR_SET_SECUREBITS", 29: "PR_SET_TIMERSLACK", 35: "PR_SET_MM", 36: "PR_SET_CHILD_SUBREAPER",
    38: "PR_SET_NO_NEW_PRIVS", 41: "PR_SET_THP_DISABLE", 47: "PR_CAP_AMBIENT", 77: "PR_TIMER_CREATE_RESTORE_IDS",
}  # fmt: skip
_SHOWN_BYTES = 48


def _flags(value: int, names: Sequence[tuple[int, str]], zero: str = "0") -> str:
    shown = []
    for bit, name in names:
        if bit and value & bit == bit:
            shown.append(name)
            value &= ~bit
    if value:
        shown.append(hex(value))
    return "|".join(shown) or zero


def _open_flags(value: int) -> str:
    return ("O_RDONLY|" if value & 3 == 0 else "") + _flags(value, _OPEN, "") if value else "O_RDONLY"


def _signal(value: int) -> str:
    try:
        return signal.Signals(value).name
    except ValueError:
        return f"SIGRT_{value - 32}" if value >= 32 else str(value)


def _text(value: bytes, *, is_path: bool) -> str:
    if is_path:
        value = value.removesuffix(b"\0")
    shown = value[:_SHOWN_BYTES].decode("latin-1").encode("unicode_escape").decode().replace('"', '\\"')
    return f'"{shown}"' + ("..." if len(value) > _SHOWN_BYTES else "")


def _argument(kind: str, value: int) -> str:
    signed = value - (1 << 64) if value >= 1 << 63 else value
    match kind:
        case "dirfd":
            return "AT_FDCWD" if signed == -100 else str(signed)
        case "addr" | "ptr" | "hex":
            return hex(value & (1 << 64) - 1) if value else "0" if kind == "hex" else "NULL"
        case "oct":
            return oct(value).replace("0o", "0")
        case "prot":
            return _flags(value, _PROT, "PROT_NONE")
        case "mapflags":
            return _flags(value, _MAP)
        case "clone":
            return _flags(value, _CLONE)
        case "oflags":
            return _open_flags(value)
        case "fdflags":
            return _flags(value, _OPEN)
        case "signal":
            return _signal(value)
        case "fcntl":
            return _FCNTL.get(value, str(value))
        case "madvice":
            return _MADVICE.get(value, str(value))
        case "prctl":
            return _PRCTL.get(value, str(value))
        case "whence":
            return {0: "SEEK_SET", 1: "SEEK_CUR", 2: "SEEK_END"}.get(value, str(value))
        case _:
            return str(signed)


def render_call(name: str, arguments: Sequence[int | str | bytes]) -> str:
    """Render a call; ``str`` arguments stand for results of earlier entries, ``bytes`` for data behind a pointer."""
    kinds = SYSCALLS[name].arguments
    shown = []
    for i, argument in enumerate(arguments):
        kind = kinds[i] if i < len(kinds) else "int"
        if isinstance(argument, str):
            shown.append(argument)
        elif isinstance(argument, bytes):
            shown.append(_text(argument, is_path=kind == "str"))
        else:
            shown.append(_argument(kind, argument))
    return f"{name}({', '.join(shown)})"
