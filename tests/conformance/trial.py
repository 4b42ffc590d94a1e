"""``python -m conformance.trial CHECKOUT TEST LABEL``: one test in a process of its own, which outlives none of it."""

from __future__ import annotations

import contextlib
import random
import signal
import sys
import time
from pathlib import Path

from conformance.apart import have_own_network_and_ipc
from conformance.checkout import Checkout, Test
from conformance.hierarchies import nothing_left
from conformance.outcome import Outcome, general, reason_of_error, reason_of_refusal, without_paths
from conformance.running import Broken, Failed, HookFailed, Running
from conformance.workplace import Workplace
from harness.command import CommandFailed, Finished, Orch
from harness.descendants import become_subreaper

REFUSALS = frozenset({15, 20, 21})
PAUSE_SECONDS = 0.5


class Refused(Exception):
    """Orch said no before it touched the test."""


class NotRestored(Exception):
    """A command of orch failed."""


def _saved_and_restored(running: Running, orch: Orch) -> None:
    """Take the test from its set-up to its verdict by way of an image."""
    place = running.place
    image = place.images / "test.ckpt"
    running.hook("--pre-dump")
    options = running.test.description.checkpoint_options()
    done = orch.any_way("checkpoint", "--cgroup", str(place.job), "--kill", "-o", str(image), *options)
    if done.exit_code in REFUSALS:
        running.must_pass()
        raise Refused(_said(done, place))
    if done.exit_code != 0:
        raise NotRestored(f"checkpoint: {_said(done, place)}")
    running.pidfile.unlink(missing_ok=True)
    running.hook("--pre-restore")
    pidfile = place.top / "root.pid"
    done = orch.any_way(
        "restore",
        str(image),
        "-d",
        *running.test.description.restore_options(),
        "--name",
        place.label,
        "--pidfile",
        str(pidfile),
    )
    if done.exit_code != 0:
        raise NotRestored(f"restore: {_said(done, place)}")
    running.root = int(pidfile.read_text())
    running.hook("--post-restore")
    running.must_pass()


def _said(done: Finished, place: Workplace) -> str:
    return without_paths(done.errors, place.files, place.top)


def _attempt(checkout: Checkout, test: Test, label: str, *, untouched: bool = False) -> Outcome:
    """Run a test once; with ``untouched`` without orch."""
    place = Workplace.make(checkout, test, label)
    running = Running(checkout, test, place, test.description.seconds)
    try:
        running.start()
        if test.moves_on:
            # Somewhere in the midst of its work.
            time.sleep(random.uniform(0, PAUSE_SECONDS))
        if untouched:
            running.must_pass()
        else:
            _saved_and_restored(running, Orch(place.images, place.top))
    except Refused as error:
        if test.description.may_be_refused:
            return Outcome(test.name, "passed", reason_of_refusal(str(error)), str(error))
        return Outcome(test.name, "refused", reason_of_refusal(str(error)), str(error))
    except Broken as error:
        return Outcome(test.name, "broken", general(str(error)), str(error))
    except NotRestored as error:
        return Outcome(test.name, "failed", reason_of_error(str(error)), str(error))
    except (Failed, HookFailed) as error:
        return Outcome(test.name, "failed", general(str(error)), f"{error}\n{running.output()}")
    except CommandFailed as error:
        return Outcome(test.name, "failed", "orch does not return in time", str(error))
    else:
        return Outcome(test.name, "passed")
    finally:
        with contextlib.suppress(HookFailed):
            running.hook("--clean")
        place.remove()


def _tidily(test: Test) -> contextlib.AbstractContextManager[None]:
    """Remove the cgroups that a test of cgroups leaves; no other one makes any."""
    return nothing_left() if "cgroup" in test.name else contextlib.nullcontext()


def attempt(checkout: Checkout, test: Test, label: str) -> Outcome:
    """Run a test; where it fails, see whether it does so without orch."""
    with _tidily(test):
        outcome = _attempt(checkout, test, label)
    if outcome.status != "failed":
        return outcome
    with _tidily(test):
        alone = _attempt(checkout, test, label, untouched=True)
    if alone.status == "passed":
        return outcome
    missing = test.description.lacks_counterpart
    if missing is not None:
        return Outcome(test.name, "failed", f"orch has nothing like CRIU's {missing}", outcome.detail)
    if test.description.asks_for_change is not None:
        return outcome
    return Outcome(test.name, "broken", alone.reason, alone.detail)


def main(arguments: list[str]) -> int:
    """Print the outcome as JSON."""
    checkout, name, label = Checkout(Path(arguments[0])), arguments[1], arguments[2]
    become_subreaper()
    have_own_network_and_ipc()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))
    test = Test(name, checkout.suite / name)
    print(attempt(checkout, test, label).to_json())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
