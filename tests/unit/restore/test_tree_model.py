"""Whatever tree of processes some history of forks, exits and sessions leaves: the tapes make it again.

The history and the tapes run on a model of the kernel. Tasks play their tapes in any order between two barriers.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import assume, event, example, given, settings
from hypothesis import strategies as st

from harness.model_kernel import SIGCHLD, TABLES, ModelKernel, Refused, Task
from harness.records import compile_plan, process, snapshot
from orchestrator.errors import CannotHonour
from orchestrator.ids import Pid
from orchestrator.kinds.task.process import Process, unshareable
from orchestrator.restore.plan import Plan
from orchestrator.tape.build import Block, Tape

ROOT = 100
SHELL = 50
"""A session and group of the host that the root was started in."""
INIT = Pid(1)
_CLONE_INTO_CGROUP = 0x2_0000_0000
_SUBREAPER = 36


@dataclass(frozen=True)
class Act:
    """One step of a history: what is done, by whom, and to or with whom (indices into the living)."""

    what: str
    who: int
    other: int = 0
    flags: int = 0


sharing = st.sets(st.sampled_from(sorted(TABLES.values())), max_size=2).map(sum)
small = st.integers(0, 9)
acts = st.one_of(
    st.builds(Act, st.just("fork"), small, st.just(0), st.just(0)),
    st.builds(Act, st.just("fork"), small, st.sampled_from([0, 10]), sharing),
    st.builds(Act, st.sampled_from(["setsid", "subreaper", "wait", "own group"]), small, small),
    st.builds(Act, st.just("setpgid"), small, small),
    st.builds(Act, st.just("exit"), small, st.sampled_from([0, 3 << 8, 9])),
)


def lived(history: list[Act], outside: int) -> ModelKernel:
    """Run a history; steps that the kernel refuses are left out."""
    kernel = ModelKernel(INIT, outside, outside, init_reaps=True)
    root = kernel.clone(kernel.init, ROOT)
    pid = ROOT
    for act in history:
        living = [task for task in kernel.alive() if task is not kernel.init]
        task, other = living[act.who % len(living)], living[act.other % len(living)]
        try:
            if act.what == "fork":
                pid += 1
                kernel.clone(task, pid, act.flags, act.other or SIGCHLD)
            elif act.what == "setsid":
                kernel.setsid(task)
            elif act.what == "subreaper":
                task.subreaper = True
            elif act.what == "own group":
                kernel.setpgid(task, 0)
            elif act.what == "setpgid":
                kernel.setpgid(task, other.group)
            elif act.what == "wait":
                zombie = next((child for child in kernel.children(task) if not child.alive), None)
                if zombie is not None:
                    kernel.wait(task, zombie.pid)
            elif task is not root:
                kernel.exit(task, act.other)
        except Refused:
            continue
    return kernel


def family(kernel: ModelKernel) -> Iterator[Task]:
    """Yield the tasks of a job, parents first."""
    stack = kernel.children(kernel.init)[::-1]
    while stack:
        task = stack.pop()
        yield task
        stack += kernel.children(task)[::-1]


def recorded(kernel: ModelKernel) -> list[Process]:
    """Describe a job as a checkpoint does."""
    numbers: dict[int, int] = {}
    records = []
    for task in family(kernel):
        assert task.parent is not None
        tables = {name: numbers.setdefault(id(table), len(numbers)) for name, table in task.tables.items()}
        records.append(
            process(
                task.pid, 0 if task.parent is kernel.init else task.parent.pid, group=task.group, session=task.session,
                zombie=not task.alive, subreaper=task.subreaper, exit_signal=task.exit_signal,
                exit_status=task.exit_status, **(tables if task.alive else {}),
            )
        )  # fmt: skip
    return records


class Player:
    """Plays a plan on a new kernel; chance says who of the runnable is next."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self.kernel = ModelKernel(INIT, 0, 0, init_reaps=False)
        self._plan = plan
        self._chance = random.Random(seed)
        self._running: list[Iterator[None]] = []

    def play(self) -> None:
        self._running = [self._tape(self.kernel.init, self._plan.tapes[INIT].grow)]
        self._run()
        for step in self._plan.gather:
            self._running = [self._tape(self.kernel.tasks[pid], tape) for pid, tape in step.items()]
            self._run()

    def _run(self) -> None:
        while self._running:
            turn = self._chance.randrange(len(self._running))
            if next(self._running[turn], self) is self:
                del self._running[turn]

    def _tape(self, task: Task, tape: Tape) -> Iterator[None]:
        births = iter(self._plan.tapes[Pid(task.pid)].births) if "grow" in tape.label else iter(())
        for name, arguments in tape.calls():
            numbers = [argument if isinstance(argument, int) else 0 for argument in arguments]
            if name == "clone3":
                assert isinstance(arguments[0], Block)
                words = struct.unpack_from("<11Q", tape.content(arguments[0]))
                node = next(births)
                child = self.kernel.clone(task, node.pid, words[0] & ~_CLONE_INTO_CGROUP, words[4])
                self._running.append(self._tape(child, self._plan.tapes[node.pid].grow))
            elif name == "setsid":
                self.kernel.setsid(task)
            elif name == "setpgid":
                self.kernel.setpgid(task, numbers[1])
            elif name == "prctl" and numbers[0] == _SUBREAPER:
                task.subreaper = True
            elif name == "exit_group":
                self.kernel.exit(task, numbers[0] << 8)
            elif name == "kill":
                assert numbers[0] == task.pid
                self.kernel.exit(task, numbers[1])
            elif name == "wait4":
                self.kernel.wait(task, numbers[0])
            yield


def described(kernel: ModelKernel) -> dict[int, tuple[object, ...]]:
    """Say of every task what a job can see of itself."""
    tables: dict[int, int] = {}
    found: dict[int, tuple[object, ...]] = {}
    for task in sorted((task for task in kernel.tasks.values() if task is not kernel.init), key=lambda t: t.pid):
        assert task.parent is not None
        parent = 0 if task.parent is kernel.init else task.parent.pid
        shared = [tables.setdefault(id(table), task.pid) for table in task.tables.values()] if task.alive else []
        found[task.pid] = (
            parent,
            task.group,
            task.session,
            task.alive,
            task.exit_status,
            shared,
            task.alive and task.subreaper,
        )
        if parent:
            found[task.pid] += (task.exit_signal,)
    return found


ORPHAN_OF_A_GROUP_WHOSE_FOUNDER_IS_GONE = [
    Act("fork", 0),
    Act("setsid", 1),
    Act("fork", 1),
    Act("fork", 0),
    Act("own group", 2),
    Act("exit", 1),
    Act("fork", 1),
    Act("exit", 1),
]


@pytest.mark.parametrize("outside", [0, SHELL])
@settings(max_examples=300, deadline=None)
@given(history=st.lists(acts, max_size=25), seed=st.integers(0, 1 << 32))
@example(history=ORPHAN_OF_A_GROUP_WHOSE_FOUNDER_IS_GONE, seed=0)
def test_a_tree_is_made_again(outside: int, history: list[Act], seed: int) -> None:
    kernel = lived(history, outside)
    records = recorded(kernel)
    assume(not any(unshareable(records)))  # a checkpoint refuses these
    try:
        plan = compile_plan(snapshot(records))
    except CannotHonour as error:
        event(f"refused: {' '.join(word for word in str(error).split() if not word.strip('():,').isdigit())}")
        assume(False)
        raise
    player = Player(plan, seed)
    player.play()
    assert described(player.kernel) == described(kernel)
