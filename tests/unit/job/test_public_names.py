"""The public interface is complete, and importing it loads next to nothing."""

from __future__ import annotations

import inspect
import subprocess
import sys

import orchestrator
from orchestrator import aio, api


def test_every_public_name_is_there() -> None:
    for name in orchestrator.__all__:
        assert getattr(orchestrator, name) is not None
    assert callable(orchestrator.restore), "not the package of that name"


def test_a_name_that_is_not_public_is_not_there() -> None:
    assert not hasattr(orchestrator, "no_such_name")


def test_importing_it_loads_nothing_heavy() -> None:
    source = "import sys, orchestrator; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True, timeout=60)
    assert not {"trio", "msgspec", "ctypes", "argparse", "orchestrator.api"} & set(loaded.stdout.split())


def test_both_forms_take_the_same_parameters() -> None:
    for name in ("run", "restore", "checkpoint", "kill_job", "open_image", "prune"):
        blocking, asynchronous = getattr(api, name), getattr(aio, name)
        assert inspect.iscoroutinefunction(asynchronous)
        ours = {key: parameter.default for key, parameter in inspect.signature(blocking).parameters.items()}
        theirs = {key: parameter.default for key, parameter in inspect.signature(asynchronous).parameters.items()}
        if name == "kill_job":
            ours = {"name": ours["name"]}
        assert ours == theirs


def test_exit_codes_are_never_shared_and_stand_in_the_tree() -> None:
    from orchestrator import errors

    tree = errors.__doc__ or ""
    codes: dict[int, str] = {}
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.OrchError) and "exit_code" in vars(kind):
            assert kind.exit_code not in codes, f"{name} and {codes[kind.exit_code]} share a code"
            codes[kind.exit_code] = name
            (line,) = [line for line in tree.splitlines() if f"{name} " in line and str(kind.exit_code) in line]
            assert line.split(name)[1].split()[0] == str(kind.exit_code)
    assert len(codes) > 25
