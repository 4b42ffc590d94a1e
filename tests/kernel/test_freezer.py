"""The freezer on real cgroups of both versions: jobs stop, go on, and find their cgroup as the user left it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.cgroups import remove
from harness.compiler import compiled
from harness.deadline import Deadline
from harness.stuck import STUCK, require_userfaultfd
from orchestrator.errors import EmptyJob, FreezeTimeout, JobBusy, NoSuchJob, SelfInJob
from orchestrator.freezer import CgroupRef, find_cgroup, locate_cgroup, make_freezer
from orchestrator.linux import cgroupfs
from orchestrator.linux.mountinfo import cgroup1_mount, cgroup2_mount
from orchestrator.vfork import vfork_parents

TICKER = "import time\nwhile True:\n  print('tick', flush=True)\n  time.sleep(0.005)\n"


class Jail:
    """A cgroup of the test's own, and the processes that it has put into it."""

    def __init__(self, ref: CgroupRef) -> None:
        self.ref = ref
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, source: str, directory: str | None = None) -> subprocess.Popen[bytes]:
        return self.start_program([sys.executable, "-c", source], directory)

    def start_program(self, argv: list[str], directory: str | None = None) -> subprocess.Popen[bytes]:
        enter = 'echo $$ >"$0/cgroup.procs"; exec "$@"'
        process = subprocess.Popen(["/bin/sh", "-c", enter, directory or self.ref.path, *argv], stdout=subprocess.PIPE)
        self.processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline(), "the program did not start"
        return process

    def ask(self, frozen: bool, directory: str | None = None) -> None:
        if self.ref.version == 2:
            cgroupfs.set_frozen(directory or self.ref.path, frozen)
        else:
            cgroupfs.set_freezer_state(directory or self.ref.path, "FROZEN" if frozen else "THAWED")

    def asks_frozen(self, directory: str | None = None) -> bool:
        name = "cgroup.freeze" if self.ref.version == 2 else "freezer.self_freezing"
        return Path(directory or self.ref.path, name).read_text().strip() == "1"

    def close(self) -> None:
        for directory in cgroupfs.walk(self.ref.path):
            self.ask(False, directory)
        for process in self.processes:
            process.kill()
            process.wait(10)
            assert process.stdout is not None
            process.stdout.close()
        for directory in reversed(cgroupfs.walk(self.ref.path)):
            remove(Path(directory))


@pytest.fixture(params=[2, 1], ids=["v2", "v1"])
def jail(request: pytest.FixtureRequest) -> Iterator[Jail]:
    mount = cgroup2_mount() if request.param == 2 else cgroup1_mount("freezer")
    if mount is None:
        pytest.skip(f"no cgroup v{request.param} freezer is mounted here")
    directory = f"{mount}/orch-test-freezer-{os.getpid()}"
    cgroupfs.create(directory)
    jail = Jail(CgroupRef(request.param, directory))
    with ExitStack() as stack:
        stack.callback(jail.close)
        yield jail


def drain(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    fd = process.stdout.fileno()
    while select.select([fd], [], [], 0)[0]:
        assert os.read(fd, 65536)


def ticks_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    assert process.stdout is not None
    return bool(select.select([process.stdout.fileno()], [], [], seconds)[0])


def test_a_frozen_job_stands_still_and_goes_on_after_the_thaw(jail: Jail) -> None:
    ticker = jail.start(TICKER)
    freezer = make_freezer(jail.ref)
    assert freezer.tasks() == [ticker.pid]
    freezer.freeze(10)
    drain(ticker)
    assert not ticks_within(ticker, 0.1)
    freezer.thaw()
    assert ticks_within(ticker, 10)
    freezer.leave()
    assert not jail.asks_frozen()


def test_tasks_of_cgroups_below_belong_to_the_job(jail: Jail) -> None:
    below = f"{jail.ref.path}/below"
    cgroupfs.create(below)
    one, two = jail.start(TICKER), jail.start(TICKER, below)
    freezer = make_freezer(jail.ref)
    assert freezer.tasks() == sorted([one.pid, two.pid])
    freezer.freeze(10)
    drain(two)
    assert not ticks_within(two, 0.05)
    freezer.leave()
    assert ticks_within(two, 10)


def test_what_the_user_had_frozen_stays_frozen_afterwards(jail: Jail) -> None:
    below = f"{jail.ref.path}/below"
    cgroupfs.create(below)
    ticker, other = jail.start(TICKER, below), jail.start(TICKER)
    jail.ask(True, below)
    freezer = make_freezer(jail.ref)
    freezer.freeze(10)
    freezer.thaw()
    drain(ticker)
    assert ticks_within(ticker, 10), "thaw() must reach tasks that the user had frozen"
    freezer.leave()
    assert jail.asks_frozen(below)
    assert not jail.asks_frozen()
    drain(other)
    assert ticks_within(other, 10)


def test_a_job_that_was_frozen_as_a_whole_is_left_frozen(jail: Jail) -> None:
    jail.start(TICKER)
    jail.ask(True)
    freezer = make_freezer(jail.ref)
    freezer.freeze(10)
    freezer.thaw()
    assert not jail.asks_frozen()
    freezer.leave()
    assert jail.asks_frozen()


def test_leaving_before_freezing_touches_nothing(jail: Jail) -> None:
    jail.start(TICKER)
    jail.ask(True)
    make_freezer(jail.ref).leave()
    assert jail.asks_frozen()


def test_a_task_stuck_in_the_kernel_is_named_and_the_job_thawed(jail: Jail) -> None:
    require_userfaultfd()
    stuck, ticker = jail.start(STUCK), jail.start(TICKER)
    with pytest.raises(FreezeTimeout) as caught:
        make_freezer(jail.ref).freeze(0.3)
    if jail.ref.version == 2:
        assert f"{stuck.pid} (python" in caught.value.message
        assert f"{ticker.pid} (" not in caught.value.message
    assert not jail.asks_frozen()
    drain(ticker)
    assert ticks_within(ticker, 10)


def await_vfork(cgroup: CgroupRef) -> None:
    deadline = Deadline.after(10)
    while len(make_freezer(cgroup).tasks()) < 2:
        assert not deadline.passed
        select.select([], [], [], 0.001)


def test_a_vfork_parent_is_waited_for(jail: Jail, tmp_path: Path) -> None:
    jail.start_program([str(compiled("vfork_child_waits")), str(tmp_path)])
    await_vfork(jail.ref)
    go = threading.Timer(0.1, (tmp_path / "go").touch)
    go.start()
    freezer = make_freezer(jail.ref)
    freezer.freeze(10)
    go.join()
    tasks = freezer.tasks()
    assert {Path(f"/proc/{pid}/comm").read_text() for pid in tasks} == {"vfork_child_wai\n", "sleep\n"}
    assert vfork_parents(tasks) == []
    freezer.leave()
    for pid in tasks:
        os.kill(pid, signal.SIGKILL)


def test_a_vfork_parent_that_stays_is_named_and_the_job_thawed(jail: Jail, tmp_path: Path) -> None:
    parent = jail.start_program([str(compiled("vfork_child_waits")), str(tmp_path)])
    await_vfork(jail.ref)
    tasks = make_freezer(jail.ref).tasks()
    with pytest.raises(FreezeTimeout, match=rf"{parent.pid} \(vfork_child_wai\) waits for the child .* vfork"):
        make_freezer(jail.ref).freeze(0.2)
    assert not jail.asks_frozen()
    for pid in tasks:
        os.kill(pid, signal.SIGKILL)


def test_a_freeze_from_above_is_refused(jail: Jail) -> None:
    below = f"{jail.ref.path}/below"
    cgroupfs.create(below)
    jail.start(TICKER, below)
    jail.ask(True)
    freezer = make_freezer(CgroupRef(jail.ref.version, below))
    make_freezer(jail.ref).freeze(10)
    with pytest.raises(JobBusy, match="above"):
        freezer.freeze(10)


def test_a_cgroup_is_found_by_path_and_by_name(jail: Jail) -> None:
    jail.start(TICKER)
    name = os.path.basename(jail.ref.path)
    assert find_cgroup(jail.ref.path) == jail.ref
    assert find_cgroup(name) == jail.ref
    assert find_cgroup(f"/{name}/") == jail.ref


def test_an_empty_cgroup_is_refused(jail: Jail) -> None:
    with pytest.raises(EmptyJob, match="holds no process"):
        find_cgroup(jail.ref.path)
    with pytest.raises(EmptyJob):
        make_freezer(jail.ref).freeze(1)
    assert not jail.asks_frozen()


def test_the_cgroup_that_holds_orch_is_refused(jail: Jail) -> None:
    source = (
        "import sys\nfrom orchestrator.freezer import find_cgroup\nfrom orchestrator.errors import SelfInJob\n"
        f"try:\n  find_cgroup({jail.ref.path!r})\nexcept SelfInJob as error:\n  print(error.exit_code, flush=True)\n"
    )
    process = subprocess.Popen(
        ["/bin/sh", "-c", 'echo $$ >"$0/cgroup.procs"; exec "$1" -c "$2"', jail.ref.path, sys.executable, source],
        stdout=subprocess.PIPE,
    )
    jail.processes.append(process)
    assert process.stdout is not None
    assert process.stdout.read() == b"%d\n" % SelfInJob.exit_code


@pytest.mark.parametrize("name", ["no-such-job-here", "/no/such/cgroup", "/tmp", "..", "../..", ""])
def test_an_unknown_cgroup_is_refused(name: str) -> None:
    with pytest.raises(NoSuchJob):
        locate_cgroup(name)


def test_the_root_of_a_hierarchy_is_refused() -> None:
    mount = cgroup2_mount() or cgroup1_mount("freezer")
    assert mount is not None
    with pytest.raises(NoSuchJob, match="root of a hierarchy"):
        locate_cgroup(mount)
