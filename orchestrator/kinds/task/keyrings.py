"""Keyrings of threads, processes and sessions. See keyrings(7).

Keys have numbers that the kernel draws, so one that is made again is another: a task with keys of its own is refused.
Empty keyrings are made again. A session's is mostly inherited from outside and stays there: the restored job has that
of the orch that restores, which loses nothing as long as the other held no key.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from orchestrator.kinds.task.kind import Answer
from orchestrator.linux.call import machine, syscall
from orchestrator.linux.procfs import read_file
from orchestrator.linux.syscalls import numbers
from orchestrator.tape.build import Played, Tape

KEYRING = "keyring"
"""How --external allows that the keys of a session stay behind."""
_KEYCTL_GET_KEYRING_ID, _KEYCTL_READ = 0, 11
_THREAD, _PROCESS, _SESSION, _USER, _USER_SESSION = -1, -2, -3, -4, -5
_MOST = 64
_KEY_BYTES = 4
_OF_USER = b"_uid"


class Found(NamedTuple):
    """What a task has."""

    thread: bool
    """Whether its thread has a keyring, which is empty."""
    process: bool
    """Likewise its process."""
    own_keys: tuple[str, ...]
    """Which keyrings of its own hold keys: "thread", "process"."""
    session_keys: bool
    """Whether its session's keyring is not that of orch and holds keys."""


NOTHING = Found(thread=False, process=False, own_keys=(), session_keys=False)


class Lookout:
    """Knows for one capture which users have keyrings besides those that every user has."""

    def __init__(self) -> None:
        self._known: dict[int, bool] = {}
        self._own_session: int | None = None

    def sees(self, user: int) -> bool:
        """Whether tasks of a user may have keyrings. /proc/keys shows everybody his own, so it is read in his name."""
        if user not in self._known:
            self._known[user] = any(_has_keyrings(_keys_of(one)) for one in {user, 0})
        return self._known[user]

    @property
    def own_session(self) -> int:
        """The number of orch's own session keyring, which a restored job has."""
        if self._own_session is None:
            self._own_session = syscall(numbers(machine())["keyctl"], _KEYCTL_GET_KEYRING_ID, _SESSION, 0)
        return self._own_session


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _keys_of(user: int) -> bytes:
    before = _libc().setfsuid(user) if user != os.geteuid() else user
    try:
        return read_file("/proc/keys")
    except OSError:  # a kernel without keys
        return b""
    finally:
        _libc().setfsuid(before)


def _has_keyrings(keys: bytes) -> bool:
    """Say whether /proc/keys lists a keyring of a task, or one that a session has by its name."""
    for line in keys.splitlines():
        fields = line.split(None, 8)
        if len(fields) == 9 and fields[7] == b"keyring" and not fields[8].startswith((_OF_USER, b".")):
            return True
    return False


def ask_keyrings(tape: Tape, lookout: Lookout, user: int) -> Answer[Found]:
    """Ask a thread, if tasks of its user have keyrings at all."""
    if not lookout.sees(user):
        return lambda _: NOTHING
    space = tape.space(_KEY_BYTES * _MOST)
    sizes = [
        tape.keyctl(_KEYCTL_READ, which, space, _KEY_BYTES * _MOST, 0, may_fail=True) for which in (_THREAD, _PROCESS)
    ]
    session = tape.keyctl(_KEYCTL_GET_KEYRING_ID, _SESSION, 0, 0, 0, may_fail=True)
    usual = [tape.keyctl(_KEYCTL_GET_KEYRING_ID, which, 0, 0, 0, may_fail=True) for which in (_USER, _USER_SESSION)]
    content = tape.space(_KEY_BYTES * _MOST)
    size = tape.keyctl(_KEYCTL_READ, _SESSION, content, _KEY_BYTES * _MOST, 0, may_fail=True)

    def read(played: Played) -> Found:
        thread, process = map(played.result, sizes)
        outside = {lookout.own_session, *map(played.result, usual)}
        keys = {*_serials(played.data(content), played.result(size))} - outside
        left = bool(keys) and played.result(session) not in outside
        own_keys = tuple(name for name, bytes_ in (("thread", thread), ("process", process)) if bytes_ > 0)
        return Found(thread == 0, process == 0, own_keys, left)

    return read


def _serials(content: bytes, size: int) -> Iterator[int]:
    for at in range(0, min(max(size, 0), len(content)), _KEY_BYTES):
        yield int.from_bytes(content[at : at + _KEY_BYTES], "little", signed=True)


def tell_thread_keyring(tape: Tape) -> None:
    """Give the thread an empty keyring."""
    tape.keyctl(_KEYCTL_GET_KEYRING_ID, _THREAD, 1, 0, 0)


def tell_process_keyring(tape: Tape) -> None:
    """Give the process an empty keyring."""
    tape.keyctl(_KEYCTL_GET_KEYRING_ID, _PROCESS, 1, 0, 0)
