"""Start the first process of a job: in its cgroup and its namespaces from its first instruction on."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import struct
import termios
from collections.abc import Collection, Mapping
from typing import NoReturn

import msgspec

from orchestrator.errors import CommandNotFound, KernelLacks, NotPermitted, OrchError, UsageError
from orchestrator.freezer import CgroupRef
from orchestrator.linux import cgroupfs, clone, mount, nsfs

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1

# Python ignores these; a program expects them at their defaults.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


class User(msgspec.Struct, frozen=True):
    """Who a job runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...]


class Program(msgspec.Struct, frozen=True):
    """What a job's first process is."""

    argv: tuple[str, ...]
    env: Mapping[str, str] | None = None
    """None takes ours."""
    cwd: str | None = None
    user: User | None = None
    new: frozenset[str] = frozenset()
    """Namespaces to make, by their names in /proc/PID/ns."""
    stdin: int = 0
    stdout: int = 1
    stderr: int = 2
    terminal: bool = False
    """Whether its input is a terminal that shall control its session."""


def parse_namespaces(names: Collection[str]) -> frozenset[str]:
    """Check a list of namespaces to make. A new PID namespace brings a new mount namespace, for its /proc."""
    for name in names:
        if name == "user":
            raise UsageError(
                "a job in a new user namespace is not supported", hint="choose a user for the job with --user"
            )
        if name not in nsfs.TYPES:
            raise UsageError(f"there is no namespace named {name!r}", hint=f"choose from {', '.join(_makeable())}")
    chosen = frozenset(names)
    return chosen | {"mnt"} if "pid" in chosen else chosen


def _makeable() -> list[str]:
    return sorted(set(nsfs.TYPES) - {"user"})


def parse_user(text: str) -> User:
    """Look up "NAME", "UID", "NAME:GROUP" or "UID:GID". Raises UsageError."""
    import grp
    import pwd

    user, _, group = text.partition(":")
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
        uid, gid, name = entry.pw_uid, entry.pw_gid, entry.pw_name
    except KeyError as error:
        if not (user.isdecimal() and group):
            raise UsageError(
                f"there is no user {user!r}", hint="give a number with its group: --user UID:GID"
            ) from error
        uid, gid, name = int(user), 0, None
    if group:
        try:
            gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
        except KeyError as error:
            raise UsageError(f"there is no group {group!r}") from error
    groups = (gid,) if name is None or group else tuple(os.getgrouplist(name, gid))
    return User(uid, gid, groups)


def spawn(program: Program, cgroup: CgroupRef, signal_mask: Collection[int]) -> int:
    """Fork and exec a job's first process; return its process id once the program runs.

    ``signal_mask`` is the one that it starts with. Must be called while we have one thread.
    Raises CommandNotFound, UsageError, NotPermitted, KernelLacks; no process is left then.
    """
    flags = 0
    for name in program.new - {"cgroup"}:
        flags |= nsfs.TYPES[name]
    reading, writing = os.pipe2(os.O_CLOEXEC)
    directory = os.open(cgroup.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if cgroup.version == 2 else None
    try:
        pid = clone.fork(flags, directory)
        if pid == 0:
            _become(program, cgroup, signal_mask, writing)
    except OSError as error:
        os.close(reading)
        raise _fork_error(error, program) from error
    finally:
        if directory is not None:
            os.close(directory)
        os.close(writing)
    with open(reading, "rb") as pipe:
        failure = pipe.read()
    if failure:
        os.waitpid(pid, 0)
        raise _exec_error(failure, program)
    return pid


def _fork_error(error: OSError, program: Program) -> OrchError:
    made = f" in new namespaces ({', '.join(sorted(program.new))})" if program.new else ""
    if error.errno == errno.EPERM:
        return NotPermitted(f"not allowed to start a job{made}", hint="run orch as root")
    if error.errno in (errno.EINVAL, errno.ENOSYS):
        return KernelLacks(f"this kernel cannot start a job{made}", hint="'orch doctor' tells what it has")
    return OrchError(f"the job could not be started{made}: {error.strerror}")


def _become(
    program: Program, cgroup: CgroupRef, signal_mask: Collection[int], report: int
) -> NoReturn:  # pragma: no cover  (runs in the child)
    """Turn the new child into the program, or say why not and end."""
    doing = "start"
    try:
        doing = "enter the cgroup"
        if cgroup.version == 1:
            cgroupfs.attach(cgroup.path, 0)
        os.setsid()
        doing = "set up the namespaces"
        _furnish(program.new)
        doing = "connect the standard streams"
        _connect(program, report)
        if program.terminal:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        doing = "change user"
        if program.user is not None:
            os.setgroups(program.user.groups)
            os.setresgid(program.user.gid, program.user.gid, program.user.gid)
            os.setresuid(program.user.uid, program.user.uid, program.user.uid)
        doing = "enter the directory"
        if program.cwd is not None:
            os.chdir(program.cwd)
        for signo in _IGNORED_BY_PYTHON:
            signal.signal(signo, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, signal_mask)
        doing = "exec"
        os.execvpe(program.argv[0], program.argv, os.environ if program.env is None else program.env)
    except BaseException as error:  # noqa: BLE001  nothing may escape into the parent's code
        number = error.errno if isinstance(error, OSError) and error.errno else 0
        os.write(report, f"{doing}\0{number}\0{error}".encode(errors="replace"))
    finally:
        os._exit(127)


def _furnish(new: frozenset[str]) -> None:
    if "cgroup" in new:
        # Not at the clone: its root would be the cgroup of the parent.
        nsfs.unshare(nsfs.CLONE_NEWCGROUP)
    if "mnt" in new:
        mount.mount("none", "/", None, mount.MS_REC | mount.MS_PRIVATE)
    if "pid" in new:
        mount.mount("proc", "/proc", "proc", mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC)
    if "net" in new:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
            ifreq = struct.Struct("16sh22x")
            _, flags = ifreq.unpack(fcntl.ioctl(door, _SIOCGIFFLAGS, ifreq.pack(b"lo", 0)))
            fcntl.ioctl(door, _SIOCSIFFLAGS, ifreq.pack(b"lo", flags | _IFF_UP))


def _connect(program: Program, report: int) -> None:
    """Put the standard streams in place, and let nothing else of ours through the exec."""
    wanted = (program.stdin, program.stdout, program.stderr)
    # Above 2 first: one may be another's target.
    kept = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in wanted]
    for target, fd in enumerate(kept):
        os.dup2(fd, target, inheritable=True)
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2 and fd != report:
            try:
                os.set_inheritable(fd, False)
            except OSError:
                continue  # the listing's own descriptor


def _exec_error(failure: bytes, program: Program) -> OrchError:
    doing, number, text = failure.decode(errors="replace").split("\0", 2)
    why = os.strerror(int(number)) if int(number) else text
    if doing == "exec":
        name = program.argv[0]
        if int(number) == errno.ENOENT:
            return CommandNotFound(f"there is no program {name!r}", hint="give its path, or look at PATH")
        return CommandNotFound(f"{name!r} cannot be run: {why}", hint="it must be an executable file")
    if doing == "enter the directory":
        return UsageError(f"the job cannot start in {program.cwd!r}: {why}")
    if int(number) in (errno.EPERM, errno.EACCES):
        return NotPermitted(f"the job could not {doing}: {why}", hint="run orch as root")
    return OrchError(f"the job could not {doing}: {text}")
