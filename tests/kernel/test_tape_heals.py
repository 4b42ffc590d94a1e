"""A tracer dies at every step of its work; the traced program goes on as if nothing had been."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.compiler import compiled
from harness.deadline import Deadline
from orchestrator.capture.checkpoint import Request, take
from orchestrator.capture.hold import HeldJob
from orchestrator.ids import HostPid
from orchestrator.image.writer import ImageWriter
from orchestrator.linux import ptrace
from orchestrator.tape.build import Tape

_PAGE = struct.Struct("<7q")  # struct page of goes_on.c
_THREADS = 4

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


class GoesOn:
    """The program, and what it says about itself."""

    def __init__(self, directory: Path) -> None:
        path = directory / "page"
        path.write_bytes(bytes(4096))
        with path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), 4096)
        self.process = subprocess.Popen(
            [str(compiled("goes_on")), str(path)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.pid = HostPid(self.process.pid)
        self._signals = 0
        self._until(lambda: all(self.rounds), "every thread works")

    @property
    def rounds(self) -> tuple[int, ...]:
        return _PAGE.unpack_from(self._page)[:_THREADS]

    @property
    def signals(self) -> int:
        return int(_PAGE.unpack_from(self._page)[_THREADS])

    def _until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = Deadline.after(10)
        while not holds():
            self._must_be_well()
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            assert not deadline.passed, f"not so: {what}; rounds {self.rounds}\n{status}"
            time.sleep(0.0005)  # the program cannot tell us: a descriptor of ours would be part of its state

    def _must_be_well(self) -> None:
        _, _, _, _, _, line, value = _PAGE.unpack_from(self._page)
        assert not line, f"goes_on.c:{line} found {value} ({value & (1 << 64) - 1:#x})"
        assert self.process.poll() is None, f"the program ended: {self.process.returncode}"

    def must_go_on(self) -> None:
        """Every thread makes progress, no tracer is left, a signal arrives, and the program finds nothing changed."""
        before = self.rounds
        self._until(lambda: all(now > then + 1 for now, then in zip(self.rounds[:3], before[:3], strict=True)), "work")
        self.process.send_signal(signal.SIGUSR1)
        self.expect_signals(1)
        assert self.rounds[3] == 1, "the blocked read came back"
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            assert "\nTracerPid:\t0\n" in (task / "status").read_text()
        self._until(lambda: not self._living_children(), "no replica goes on")

    def _living_children(self) -> list[str]:
        found = []
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    stat = Path(f"/proc/{child}/stat").read_text()
                    if stat.rpartition(") ")[2][0] not in "ZX":
                        found.append(stat)
        return found

    def expect_signals(self, more: int) -> None:
        """Wait until signals that were sent to the program are handled; one by one, none lost, none twice."""
        self._signals += more
        self._until(lambda: self.signals == self._signals, f"{self._signals} signals, not {self.signals}")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._page.close()


@pytest.fixture
def goes_on(tmp_path: Path) -> Iterator[GoesOn]:
    program = GoesOn(tmp_path)
    yield program
    program.close()


class _Countdown:
    """Stands for the ptrace system call, and kills its caller before or after request number ``last``."""

    def __init__(self, last: int, pid: int) -> None:
        self.count = 0
        self.last = last
        self._pid = pid
        self._call = ptrace._ptrace

    def __call__(self, *arguments: int) -> int:
        self.count += 1
        if self.count == self.last:
            os.kill(self._pid, signal.SIGUSR1)  # it waits while the task is held, and arrives afterwards
            os.kill(os.getpid(), signal.SIGKILL)
        return int(self._call(*arguments))


def in_tracer(pid: int, work: Callable[[], None], last: int) -> int:
    """Do something in a child that dies before its ptrace request number ``last``; return how many it made, or 0."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            countdown = _Countdown(last, pid)
            ptrace._ptrace = countdown  # type: ignore[assignment]
            work()
            os.write(writer, countdown.count.to_bytes(4, "little"))
            os._exit(0)
        except BaseException as error:  # noqa: BLE001
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(1)
    os.close(writer)
    with open(reader, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return 0
    assert os.WEXITSTATUS(status) == 0
    return int.from_bytes(said, "little")


@contextlib.contextmanager
def held(pid: HostPid) -> Iterator[HeldJob]:
    job = HeldJob(timeout=60)
    try:
        job.seize_tree(pid)
        job.wait()
        yield job
    finally:
        job.release()


def ask(pid: HostPid) -> None:
    """Borrow a system call (mmap), play a tape in two threads, give the memory back (munmap)."""
    with held(pid) as job:
        process = job.processes[pid]
        workspace = process.make_workspace(16384)
        for thread in process.threads[:2]:
            tape = Tape("ask")
            call = tape.gettid()
            space = tape.space(64)
            for _ in range(20):
                tape.uname(tape.space(400))
            tape.getcwd(space, 64)
            assert thread.play(tape, workspace).result(call) == thread.vtid


def test_killed_before_every_request(goes_on: GoesOn) -> None:
    requests = in_tracer(goes_on.pid, lambda: ask(goes_on.pid), last=0)
    assert requests > 40
    goes_on.must_go_on()
    for last in range(1, requests + 1):
        assert in_tracer(goes_on.pid, lambda: ask(goes_on.pid), last) == 0, "it was to die"
        try:
            goes_on.expect_signals(1)
            goes_on.must_go_on()
        except AssertionError as error:
            error.add_note(f"the tracer died before request {last} of {requests}")
            raise


def test_killed_on_the_way_of_a_checkpoint(goes_on: GoesOn, tmp_path: Path) -> None:
    image = tmp_path / "images" / "x.ckpt"
    image.parent.mkdir()

    def checkpoint() -> None:
        with ImageWriter(image, architecture="x86_64", page_size=4096) as writer:
            take(Request(name="goes-on", tree=goes_on.pid, durable=False), writer)

    requests = in_tracer(goes_on.pid, checkpoint, last=0)
    assert image.exists()
    image.unlink()
    goes_on.must_go_on()
    for last in range(1, requests + 1):
        assert in_tracer(goes_on.pid, checkpoint, last) == 0
        try:
            goes_on.expect_signals(1)
            goes_on.must_go_on()
        except AssertionError as error:
            error.add_note(f"orch died before request {last} of {requests}")
            raise
        assert list(image.parent.iterdir()) == []
    # and whatever was left behind in it is no hindrance
    assert in_tracer(goes_on.pid, checkpoint, last=0)
    assert image.exists()
    goes_on.must_go_on()
