"""statfs(2): what kind of file system a file is on."""

from __future__ import annotations

import ctypes
import os

PROC_SUPER_MAGIC = 0x9FA0
HUGETLBFS_MAGIC = 0x958458F6
PID_FS_MAGIC = 0x50494446
_PSEUDO = frozenset((
    PROC_SUPER_MAGIC,
    0x62656572,  # sysfs
    0x0027E0EB,  # cgroup
    0x63677270,  # cgroup2
    0x64626720,  # debugfs
    0x74726163,  # tracefs
    0x73636673,  # securityfs
    0x62656570,  # configfs
    0x1CD1,  # devpts
    0x42494E4D,  # binfmt_misc
    0x65735543,  # fusectl
    0x6165676C,  # pstore
    0xCAFE4A11,  # bpf
    0xDE5E81E4,  # efivarfs
))  # fmt: skip

_libc = ctypes.CDLL(None, use_errno=True)
_statfs = _libc.statfs
_statfs.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
_buffer = ctypes.create_string_buffer(256)  # struct statfs has 120 bytes on every 64-bit architecture
_type = ctypes.c_long.from_buffer(_buffer)  # f_type is its first member


def filesystem_magic(path: str) -> int:
    """Return the f_type of the file system that a path leads to."""
    if _statfs(os.fsencode(path), ctypes.addressof(_buffer)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return _type.value


def is_pseudo(magic: int) -> bool:
    """Whether such a file system makes up contents, sizes and times as they are asked for."""
    return magic in _PSEUDO
