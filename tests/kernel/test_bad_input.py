"""What is wrong with the input gives one clear error with its own exit code, and harms nothing.

After each refusal the job must be running and pass its own checks, no image may be there but those
that were made on purpose, and (the job fixture sees to it) no process, cgroup or mount is left.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import pytest

from harness import cgroups
from harness.command import SECONDS, Finished, orch_argv
from harness.job import Job
from harness.pids import gone_pid, process_with_pid
from harness.program import Program, Run
from orchestrator.linux.elf import read_build_id

PTRACE_SEIZE = 0x4206
PTRACE_DETACH = 17
NOBODY = 65534

_libc = ctypes.CDLL(None, use_errno=True)


def images(job: Job) -> list[str]:
    return sorted(path.name for path in job.image.parent.iterdir())


def says(finished: Finished, *words: str) -> None:
    """Check that the error is short, names the things, and is no traceback."""
    assert "Traceback" not in finished.errors
    assert "internal error" not in finished.errors
    for word in words:
        assert word in finished.errors, finished


@pytest.fixture
def holding(job: Job) -> Run:
    """Give a job that is running and has files open."""
    run = Run(Program("file_positions"), job)
    run.start()
    return run


@pytest.fixture
def checkpointed(holding: Run) -> Run:
    """Give a job that is over, and its good image."""
    holding.job.checkpoint_and_kill()
    return holding


def refused(run: Run, exit_code: int, *argv: str, says_also: tuple[str, ...] = ()) -> Finished:
    """Have a checkpoint refused, and see that the job goes on as if nothing had been."""
    finished = run.job.orch.expect(exit_code, *argv)
    says(finished, *says_also)
    assert images(run.job) == []
    run.must_pass()
    return finished


class TestWhichJob:
    def test_unknown_cgroup(self, job: Job) -> None:
        finished = job.orch.expect(10, "checkpoint", "--cgroup", f"{job.name}-not", "-o", str(job.image))
        says(finished, f"{job.name}-not")
        assert images(job) == []

    def test_unknown_job_to_kill(self, job: Job) -> None:
        says(job.orch.expect(10, "kill", f"{job.name}-not"), f"{job.name}-not")

    def test_empty_cgroup(self, job: Job) -> None:
        cgroup = cgroups.unified() / f"{job.name}-empty"
        cgroup.mkdir()
        try:
            finished = job.orch.expect(11, "checkpoint", "--cgroup", str(cgroup), "-o", str(job.image))
            says(finished, cgroup.name)
            assert images(job) == []
            assert not cgroups.frozen(cgroup)
        finally:
            cgroups.remove(cgroup)

    def test_orch_itself_is_inside(self, job: Job) -> None:
        cgroup = cgroups.unified() / f"{job.name}-self"
        cgroup.mkdir()
        try:
            script = 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"'
            argv = [*orch_argv(), "checkpoint", "--cgroup", str(cgroup), "-o", str(job.image), "--timeout", "2"]
            done = subprocess.run(
                ["/bin/sh", "-c", script, "sh", str(cgroup), *argv],
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
            assert done.returncode == 12, done
            assert "Traceback" not in done.stderr
            assert images(job) == []
            assert not cgroups.frozen(cgroup)
        finally:
            cgroups.remove(cgroup)

    def test_process_is_gone(self, job: Job) -> None:
        pid = gone_pid()
        says(job.orch.expect(13, "checkpoint", "--pid", str(pid), "-o", str(job.image)), str(pid))
        assert images(job) == []

    def test_name_is_taken(self, holding: Run) -> None:
        refused(holding, 14, "run", "--name", holding.job.name, "-d", "--", "/bin/true", says_also=(holding.job.name,))

    def test_no_such_program(self, job: Job) -> None:
        missing = str(job.files / "no-such-program")
        says(job.orch.expect(16, "run", "--name", job.name, "-d", "--", missing), missing)

    def test_program_is_not_executable(self, job: Job) -> None:
        plain = job.files / "plain"
        plain.write_text("#!/bin/sh\n")
        plain.chmod(0o644)
        says(job.orch.expect(16, "run", "--name", job.name, "-d", "--", str(plain)), str(plain))

    def test_somebody_else_traces_it(self, holding: Run) -> None:
        pid = next(pid for pid in holding.job.processes() if comm(pid) == "file_positions")
        assert _libc.ptrace(PTRACE_SEIZE, pid, None, None) == 0
        try:
            finished = holding.job.orch.expect(
                15, "checkpoint", "--cgroup", holding.job.name, "-o", str(holding.job.image)
            )
        finally:
            # A tracee must stop before it can be let go.
            os.kill(pid, signal.SIGSTOP)
            os.waitid(os.P_PID, pid, os.WSTOPPED | 0x40000000)
            assert _libc.ptrace(PTRACE_DETACH, pid, None, None) == 0
            os.kill(pid, signal.SIGCONT)
        says(finished, str(pid))
        assert images(holding.job) == []
        holding.must_pass()


class TestUsage:
    @pytest.mark.parametrize(
        "argv",
        [
            ["checkpoint"],
            ["checkpoint", "--cgroup", "a", "--pid", "1"],
            ["checkpoint", "--cgroup", "a", "--kill", "--stop"],
            ["checkpoint", "--pid", "none"],
            ["restore"],
            ["restore", "a.ckpt", "--pid-namespace", "other"],
            ["run", "--name", "a/b", "--", "/bin/true"],
            ["run", "--name", "..", "--", "/bin/true"],
            ["run", "--new", "nothing", "--", "/bin/true"],
            ["run"],
            ["no-such-verb"],
        ],
        ids=" ".join,
    )
    def test_senseless(self, job: Job, argv: list[str]) -> None:
        says(job.orch.expect(2, *argv))

    def test_no_root(self, holding: Run) -> None:
        job = holding.job
        as_nobody = ["/usr/bin/setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        for argv in (
            ["checkpoint", "--cgroup", job.name, "-o", str(job.files / "x.ckpt")],
            ["kill", job.name],
            ["run", "--name", f"{job.name}-b", "-d", "--", "/bin/true"],
        ):
            done = subprocess.run(
                [*as_nobody, *orch_argv(), *argv], capture_output=True, text=True, timeout=SECONDS, check=False, cwd="/"
            )
            assert done.returncode == 3, (argv, done)
            assert "Traceback" not in done.stderr
        assert not (job.files / "x.ckpt").exists()
        holding.must_pass()


def comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


class TestRefusedCheckpoint:
    def test_all_blockers_are_listed(self, job: Job) -> None:
        run = Run(Program("unsupported"), job)
        run.start()
        argv = ("checkpoint", "--cgroup", job.name, "-o", str(job.image), "--kill")
        finished = refused(run, 20, *argv, says_also=("fd 40", "fd 41", "io_uring", "userfaultfd", "ring of a socket"))
        assert "2 blockers" in finished.errors or finished.errors.count("fd 4") == 2

    def test_threads_that_differ(self, job: Job) -> None:
        run = Run(Program("unlike_threads"), job)
        run.start()
        argv = ("checkpoint", "--cgroup", job.name, "-o", str(job.image), "--kill")
        words = (
            "descriptor table of thread",
            "working directory, root and umask of thread",
            "shared, but not with the whole process",
        )
        refused(run, 20, *argv, says_also=words)

    @pytest.mark.parametrize("kind", ["enters", "polls", "closed"])
    def test_threads_that_work_for_the_kernel(self, job: Job, kind: str) -> None:
        run = Run(Program("io_uring_works", (kind,)), job)
        run.start()
        argv = ("checkpoint", "--cgroup", job.name, "-o", str(job.image))
        if kind != "closed":  # whatever the user says: it shows
            reason = "a thread of the kernel polls it" if kind == "polls" else "on their way in it"
            says(job.orch.expect(20, *argv, "--external", "io_uring"), reason)
        words = ("it works for the kernel", "the ring has no descriptor" if kind == "closed" else "--external io_uring")
        refused(run, 20, *argv, says_also=words)

    def test_a_request_that_does_not_come_back(self, job: Job) -> None:
        run = Run(Program("aio_polls"), job)
        run.start()
        argv = ("checkpoint", "--cgroup", job.name, "-o", str(job.image))
        refused(run, 20, *argv, says_also=("context of io_setup", "1 requests are on their way", "--external aio"))

    def test_a_filter_with_a_supervisor(self, job: Job) -> None:
        run = Run(Program("unlike_threads", ("supervised",)), job)
        run.start()
        argv = ("checkpoint", "--cgroup", job.name, "-o", str(job.image), "--kill")
        refused(run, 20, *argv, says_also=("seccomp filter of thread", "asks a supervisor"))

    @pytest.mark.parametrize("whose", ["process", "thread"])
    def test_landlock(self, job: Job, whose: str) -> None:
        run = Run(Program("landlocked", (whose,)), job)
        run.start()
        if (job.files / "landlock").exists():
            pytest.skip("the kernel has no Landlock")
        argv = ("checkpoint", "--cgroup", job.name, "-o", str(job.image), "--kill")
        refused(run, 20, *argv, says_also=("restrictions of Landlock cannot be read back",))

    @pytest.mark.parametrize("whose", ["thread", "process", "session"])
    def test_keys_of_its_own(self, job: Job, whose: str) -> None:
        run = Run(Program("keyrings", (whose,)), job)
        run.start()
        if (job.files / "keys").exists():
            pytest.skip("the kernel has no keys")
        argv = ("checkpoint", "--cgroup", job.name, "-o", str(job.image), "--kill")
        refused(run, 20, *argv, says_also=(f"keyring of the {whose}", "its keys"))

    def test_controlling_terminal(self, job: Job) -> None:
        master, slave = os.openpty()
        try:
            path = os.ttyname(slave)
            number = f"tty[{os.major(os.fstat(slave).st_rdev)}:{os.minor(os.fstat(slave).st_rdev)}]"
            run = Run(Program("controlling_terminal", (path,)), job)
            run.start()
            argv = ("checkpoint", "--cgroup", job.name, "-o", str(job.image), "--kill")
            refused(run, 21, *argv, says_also=("controlling terminal", number))
        finally:
            os.close(slave)
            os.close(master)

    def test_memory_is_sealed(self, job: Job) -> None:
        run = Run(Program("seals_memory"), job)
        run.start()
        argv = ("checkpoint", "--cgroup", job.name, "-o", str(job.image), "--kill")
        refused(run, 20, *argv, says_also=("memory sealed with mseal",))

    def test_not_self_contained(self, job: Job) -> None:
        os.mkfifo(job.files / "outside")
        run = Run(Program("fifo_reader"), job)
        run.start()
        outside = os.open(job.files / "outside", os.O_WRONLY)
        try:
            os.write(outside, b"hello")
            argv = ("checkpoint", "--cgroup", job.name, "-o", str(job.image), "--kill")
            refused(run, 21, *argv, says_also=("outside", str(os.getpid())))
        finally:
            os.close(outside)

    def test_no_such_directory(self, holding: Run) -> None:
        target = holding.job.directory / "no" / "such.ckpt"
        argv = ("checkpoint", "--cgroup", holding.job.name, "-o", str(target), "--kill")
        refused(holding, 36, *argv, says_also=(str(target.parent),))

    def test_output_is_a_directory(self, holding: Run) -> None:
        target = holding.job.directory / "scratch"
        refused(holding, 36, "checkpoint", "--cgroup", holding.job.name, "-o", str(target), "--kill")
        assert target.is_dir()

    @pytest.mark.parametrize("ending", [(), ("--kill",)], ids=["live", "kill"])
    @pytest.mark.parametrize("room", ["64k", "4m"])
    def test_disk_is_full(self, job: Job, ending: tuple[str, ...], room: str) -> None:
        disk = job.directory / "disk"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", job.name, str(disk)], check=True, timeout=10)
        try:
            run = Run(Program("cow_sharing"), job)  # 16 MiB and children
            run.start()
            argv = ("checkpoint", "--cgroup", job.name, "-o", str(disk / "a.ckpt"), *ending)
            refused(run, 36, *argv, says_also=(str(disk / "a.ckpt"),))
            assert list(disk.iterdir()) == []
        finally:
            subprocess.run(["umount", str(disk)], check=True, timeout=10)

    def test_failed_checkpoint_keeps_the_old_image(self, job: Job) -> None:
        disk = job.directory / "disk"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", job.name, str(disk)], check=True, timeout=10)
        try:
            run = Run(Program("cow_sharing"), job)
            run.start()
            (disk / "a.ckpt").write_bytes(b"an older image")
            refused(run, 36, "checkpoint", "--cgroup", job.name, "-o", str(disk / "a.ckpt"))
            assert (disk / "a.ckpt").read_bytes() == b"an older image"
        finally:
            subprocess.run(["umount", str(disk)], check=True, timeout=10)


def sealed(page: bytes) -> bytes:
    """Give a header page the checksum that fits it, as docs/image-format.md has it."""
    from orchestrator.image.checksums import digest

    body = page[: 4096 - 16]
    return body + digest(body)


def cut_to(length: int | None, fraction: float = 0.0) -> Callable[[bytes], bytes]:
    return lambda data: data[: length if length is not None else int(len(data) * fraction)]


def flip(offset: int) -> Callable[[bytes], bytes]:
    def damage(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[offset] ^= 0x40
        return bytes(changed)

    return damage


def put(offset: int, value: bytes) -> Callable[[bytes], bytes]:
    """Change a field of the header and seal it again, as another orch would have written it."""
    return lambda data: sealed(data[:offset] + value + data[offset + len(value) : 4096]) + data[4096:]


DAMAGED: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "empty": (32, cut_to(0)),
    "text": (32, lambda _: b"this is not an image\n" * 1000),
    "zeros": (32, lambda data: bytes(len(data))),
    "cut in the header": (31, cut_to(100)),
    "cut in the metadata": (31, cut_to(4096 + 50)),
    "cut in the middle": (31, cut_to(None, 0.5)),
    "last byte cut": (31, lambda data: data[:-1]),
    "other version": (33, put(8, (99).to_bytes(4, "little"))),
    "other architecture": (34, put(24, b"sparc64".ljust(16, b"\0"))),
    "header flipped": (35, flip(30)),
    "metadata flipped": (35, flip(4096 + 40)),
}


class TestDamagedImage:
    @pytest.fixture
    def image(self, checkpointed: Run) -> Iterator[Path]:
        image = checkpointed.job.image
        before = hashlib.sha256(image.read_bytes()).digest()
        yield image
        assert hashlib.sha256(image.read_bytes()).digest() == before
        # the good one is still good
        checkpointed.job.restore()
        checkpointed.must_pass()

    def test_missing(self, job: Job) -> None:
        for verb in ("restore", "show"):
            says(job.orch.expect(30, verb, str(job.image)), str(job.image))

    @pytest.mark.parametrize("damage", DAMAGED)
    def test_damaged(self, image: Path, job: Job, damage: str) -> None:
        exit_code, change = DAMAGED[damage]
        bad = job.directory / "images" / "bad.ckpt"
        bad.write_bytes(change(image.read_bytes()))
        for argv in (["restore", str(bad), "-d"], ["restore", str(bad), "--dry-run"], ["show", str(bad)]):
            if exit_code == 34 and argv[0] == "show":
                continue  # any machine can show it
            says(job.orch.expect(exit_code, *argv), str(bad))
        assert job.processes() == []

    def test_another_version_is_asked_before_anything_else(self, image: Path, job: Job) -> None:
        bad = job.directory / "images" / "bad.ckpt"
        bad.write_bytes(put(8, (99).to_bytes(4, "little"))(image.read_bytes())[:5000])
        job.orch.expect(33, "restore", str(bad), "-d")


class TestRefusedRestore:
    def refused(self, run: Run, exit_code: int, *words: str, options: tuple[str, ...] = ("-d",)) -> None:
        finished = run.job.orch.expect(exit_code, "restore", str(run.job.image), *options)
        says(finished, *words)
        run.job.wait_until_over()  # who would have been its supervisor has said so, and ends

    def test_file_is_missing(self, checkpointed: Run) -> None:
        path = checkpointed.job.files / "a"
        aside = path.with_name("aside")
        path.rename(aside)
        self.refused(checkpointed, 41, str(path))
        aside.rename(path)
        checkpointed.job.restore()
        checkpointed.must_pass()

    @pytest.mark.parametrize("change", ["longer", "shorter", "same length", "a directory"])
    @pytest.mark.parametrize(
        ("name", "file"), [("file_read_only", "a"), ("file_positions", "a"), ("file_private", "data")]
    )
    def test_file_has_changed(self, job: Job, name: str, file: str, change: str) -> None:
        run = Run(Program(name), job)
        run.start()
        job.checkpoint_and_kill()
        path = job.files / file
        data = path.read_bytes()
        match change:
            case "longer":
                path.write_bytes(data + b"more")
            case "shorter":
                path.write_bytes(data[:4])
            case "same length":
                path.write_bytes(b"x" * len(data))
            case _:
                path.unlink()
                path.mkdir()
        if name == "file_positions" and change in ("longer", "same length"):
            # It has the file open for writing: what others wrote since is for the program to cope with.
            job.restore()
            job.kill()
        else:
            self.refused(run, 42, str(path))

    def checkpointed_copy(self, job: Job) -> tuple[Run, Path]:
        """Checkpoint a job whose program is a file of its own."""
        own = job.files / "program"
        shutil.copy(Program("anon_private").command(job.files)[0], own)
        run = Run(Program("anon_private"), job)
        os.mkfifo(job.files / "go")
        job.run([own, job.files])
        run.wait_until_ready()
        job.checkpoint_and_kill()
        return run, own

    def test_program_is_missing(self, job: Job) -> None:
        run, own = self.checkpointed_copy(job)
        own.unlink()
        self.refused(run, 41, str(own))

    @pytest.mark.parametrize("change", ["same build", "another build", "cut short"])
    def test_program_was_installed_anew(self, job: Job, change: str) -> None:
        run, own = self.checkpointed_copy(job)
        data = own.read_bytes()
        with own.open("rb") as file:
            build = read_build_id(file.fileno())
        assert data.count(build) == 1
        other = bytes(byte ^ 0xFF for byte in build)
        own.unlink()
        if change == "another build":
            data = data.replace(build, other)
        own.write_bytes(data[:-1] if change == "cut short" else data)
        own.chmod(0o755)
        match change:
            case "same build":
                job.restore()
                run.must_pass()
            case "another build":
                self.refused(run, 42, str(own), build.hex(), other.hex())
            case _:
                self.refused(run, 42, str(own), f"{len(data)} bytes")

    def test_pid_is_taken(self, checkpointed: Run) -> None:
        import json

        shown = json.loads(checkpointed.job.orch.ok("show", str(checkpointed.job.image), "--json").output)
        pid = root_pid(shown)
        with process_with_pid(pid):
            finished = checkpointed.job.orch.expect(
                40, "restore", str(checkpointed.job.image), "-d", "--pid-namespace", "host"
            )
            says(finished, str(pid))
        checkpointed.job.orch.ok("restore", str(checkpointed.job.image), "-d", "--pid-namespace", "host")
        checkpointed.must_pass()

    def test_job_still_runs(self, holding: Run) -> None:
        holding.job.checkpoint()
        says(holding.job.orch.expect(14, "restore", str(holding.job.image), "-d"), holding.job.name)
        holding.must_pass()

    def test_port_is_taken(self, job: Job) -> None:
        run = Run(Program("tcp_listeners", ("v4",)), job)
        run.start()
        job.checkpoint_and_kill()
        port = listening_port(job)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", port))
            taken.listen()
            self.refused(run, 43, str(port))
        job.restore()
        run.must_pass()


class Obstacle(NamedTuple):
    """What is in the way of a restore, and how it is refused: exit code, and words of the message."""

    program: Program
    put: Callable[[Job], AbstractContextManager[object]]
    exit_code: int
    words: tuple[str, ...]


@contextlib.contextmanager
def instead(path: Path, make: Callable[[Path], object]) -> Iterator[None]:
    """Put something else where a file was, for a while."""
    aside = path.with_name(f"{path.name}-aside")
    path.rename(aside)
    make(path)
    yield
    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    aside.rename(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@contextlib.contextmanager
def flocked(path: Path) -> Iterator[None]:
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def bound(family: int, address: str | tuple[str, int]) -> Iterator[None]:
    """Have a socket listen at an address."""
    with socket.socket(family) as taken:
        taken.bind(address)
        taken.listen()
        yield
    if isinstance(address, str) and not address.startswith("\0"):
        os.unlink(address)


def abstract_name(job: Job) -> str:
    shown = job.orch.ok("show", str(job.image), "--json").output
    found = re.search(r"selfcheck-\d+", shown)
    assert found is not None, shown
    return f"\0{found[0]}"


@contextlib.contextmanager
def taken_name(job: Job) -> Iterator[None]:
    path = job.files / "listener"
    path.unlink(missing_ok=True)
    with bound(socket.AF_UNIX, str(path)):
        yield


def replaced(name: str, make: Callable[[Path], object]) -> Callable[[Job], AbstractContextManager[object]]:
    return lambda job: instead(job.files / name, make)


READS = Program("file_read_only")
LOCKS = Program("flock_owner")
OBSTACLES: dict[str, Obstacle] = {
    "a file is a directory": Obstacle(READS, replaced("a", Path.mkdir), 42, ("fd ", "a regular file", "a directory")),
    "a file is a FIFO": Obstacle(READS, replaced("a", os.mkfifo), 42, ("fd ", "/a,", "is a FIFO now")),
    "a file is a link": Obstacle(READS, replaced("a", lambda at: at.symlink_to("b")), 42, ("fd ", "a symbolic link")),
    "a file is a socket": Obstacle(READS, replaced("a", make_socket), 42, ("fd ", "is a socket now")),
    "a directory is a file": Obstacle(
        Program("directories"), replaced("many", Path.touch), 42, ("fd ", "was a directory", "is a regular file now")
    ),
    "a FIFO is a file": Obstacle(Program("fifos"), replaced("fifo", Path.touch), 42, ("fd ", "was a FIFO")),
    "a lock of a process": Obstacle(LOCKS, lambda job: flocked(job.files / "mine"), 43, ("fd ", "/mine", "locked")),
    "a lock of an ended one": Obstacle(LOCKS, lambda job: flocked(job.files / "orphaned"), 43, ("fd ", "/orphaned")),
    "a port": Obstacle(
        Program("tcp_listeners", ("v4",)),
        lambda job: bound(socket.AF_INET, ("127.0.0.1", listening_port(job))),
        43,
        ("fd ", "in use", f"{os.getpid()}"),
    ),
    "an abstract name": Obstacle(
        Program("unix_listeners", ("abstract",)),
        lambda job: bound(socket.AF_UNIX, abstract_name(job)),
        43,
        ("fd ", "abstract socket name", f"{os.getpid()}"),
    ),
    "a socket's name": Obstacle(Program("unix_listeners"), taken_name, 43, ("fd ", "/listener is in use")),
    "a socket's name, by a file": Obstacle(
        Program("unix_listeners"),
        replaced("listener", Path.touch),
        43,
        ("fd ", "/listener", "another kind of file"),
    ),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_what_is_in_the_way_of_a_restore(job: Job, name: str) -> None:
    obstacle = OBSTACLES[name]
    run = Run(obstacle.program, job)
    run.start()
    job.checkpoint_and_kill()
    with obstacle.put(job):
        before = Traces.of(job)
        finished = job.orch.expect(obstacle.exit_code, "restore", str(job.image), "-d")
        says(finished, *obstacle.words)
        assert re.search(r"\d+ \(\w+\): fd \d+: ", finished.errors), finished
        assert Traces.of(job) == before
    job.restore()
    run.must_pass()


class Traces(NamedTuple):
    """What a restore would leave of itself if it were half done."""

    processes: list[int]
    cgroups: list[Path]
    files: list[Path]
    records: list[str]
    mounts: str

    @classmethod
    def of(cls, job: Job) -> Traces:
        listed = Path("/run/orch/jobs")
        places = (job.files, job.image.parent, job.orch.scratch)
        return cls(
            job.processes(),
            sorted(cgroups.of_job(job.name)),
            sorted(path for place in places for path in place.rglob("*")),
            sorted(path.name for path in listed.iterdir() if job.name in path.name) if listed.is_dir() else [],
            "\n".join(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if job.name in line),
        )


class TestExternals:
    @pytest.fixture
    def fifo(self, job: Job) -> Iterator[tuple[Run, str]]:
        """Give a job that reads a FIFO which somebody outside writes to, and what --external calls that."""
        path = job.files / "outside"
        os.mkfifo(path)
        run = Run(Program("fifo_reader"), job)
        run.start()
        writer = os.open(path, os.O_WRONLY)
        os.write(writer, b"hello")
        yield run, f"file[{path}]"
        os.close(writer)

    def test_declared_but_not_there(self, holding: Run) -> None:
        start = ("checkpoint", "--cgroup", holding.job.name, "-o", str(holding.job.image), "--kill")
        refused(holding, 2, *start, "--external", "pipe[4026531]", says_also=("--external pipe[4026531]", "no process"))

    @pytest.mark.parametrize(
        ("opened", "key", "words"),
        [
            ("", None, ("nothing takes its place", "--inherit")),
            ("7</dev/null", "pipe[1]", ("--inherit pipe[1]", "matches nothing")),
            ("7>/dev/null", "", ("fd 3: --inherit", "=7", "writing only", "for reading")),
            ("7</", "", ("fd 3: --inherit", "=7", "it is a directory")),
        ],
        ids=["missing", "matches nothing", "other access", "a directory"],
    )
    def test_what_is_given_does_not_fit(
        self, fifo: tuple[Run, str], opened: str, key: str | None, words: tuple[str, ...]
    ) -> None:
        run, own = fifo
        job = run.job
        job.checkpoint_options = ["--external", own]
        job.checkpoint_and_kill()
        before = Traces.of(job)
        options = [] if key is None else ["--inherit", f"{key or own}=7"]
        if key == "pipe[1]":
            job.orch.under = ["/bin/sh", "-c", f'exec "$@" {opened} 8</dev/null', "sh"]
            options += ["--inherit", f"{own}=8"]
        elif opened:
            job.orch.under = ["/bin/sh", "-c", f'exec "$@" {opened}', "sh"]
        finished = job.orch.expect(45, "restore", str(job.image), "-d", *options)
        says(finished, *words)
        assert Traces.of(job) == before


def root_pid(shown: object) -> int:
    """Find the root's process id in what `orch show --json` prints."""
    found = find(shown, "root")
    assert isinstance(found, int)
    return found


def find(value: object, key: str) -> object:
    """Return the first value under a key, outermost and earliest first."""
    queue = [value]
    while queue:
        item = queue.pop(0)
        if isinstance(item, dict):
            if key in item:
                return item[key]
            queue += item.values()
        elif isinstance(item, list):
            queue += item
    raise AssertionError(f"there is no {key}")


def listening_port(job: Job) -> int:
    shown = job.orch.ok("show", str(job.image)).output
    found = re.search(r"127\.0\.0\.1[:,](\d+)", shown)
    assert found is not None, shown
    return int(found[1])
