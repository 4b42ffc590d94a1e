"""A test that runs: start it, signal it, and read its verdict."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from conformance.checkout import Checkout, Test
from conformance.outcome import reason_of_verdict, without_paths
from conformance.workplace import Workplace

# The ids that the suite gives its tests where they need not be root.
_UID, _GID, _GROUPS = "18943", "58467", "27495 48244"


class Broken(Exception):
    """The test does not get as far as to be saved."""


class Failed(Exception):
    """The test was not content."""


class HookFailed(Exception):
    """The test's hook was not content."""


@dataclass(slots=True)
class Running:
    """One run of a test in its workplace."""

    checkout: Checkout
    test: Test
    place: Workplace
    seconds: float
    root: int = 0
    """Its first process, as the host sees it."""

    @property
    def log(self) -> Path:
        return self.place.top / "start.log"

    @property
    def pidfile(self) -> Path:
        return self.place.files / f"{self.test.program}.pid"

    def start(self) -> None:
        """Start the test and wait until it says that it is set up. Raises Broken, HookFailed."""
        command = self.checkout.command(self.test)
        with self.log.open("wb") as out:
            process = subprocess.Popen(
                command,
                cwd=self.place.files,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                preexec_fn=self.place.put_in_job,  # noqa: PLW1509 - this process has one thread
            )
        self.hook("--post-start")
        try:
            code = process.wait(self.seconds)
        except subprocess.TimeoutExpired:
            raise Broken("it does not get set up in time") from None
        if code != 0 or not self.pidfile.exists():
            raise Broken(reason_of_verdict(self.output() or self.log.read_text(errors="replace")))
        self.root = int(self.pidfile.read_text())
        self.place.send_outsiders_away(self.root)

    def _environment(self) -> dict[str, str]:
        environment = {"PATH": os.environ.get("PATH", os.defpath), "TMPDIR": "/tmp", "ZDTM_THREAD_BOMB": "5"}
        if not self.test.description.as_root:
            environment |= {"ZDTM_UID": _UID, "ZDTM_GID": _GID, "ZDTM_GROUPS": _GROUPS}
        if "pre-dump-notify" in self.test.description.flags:
            environment |= {"ZDTM_NOTIFY_FDIN": "100", "ZDTM_NOTIFY_FDOUT": "101"}
        return environment

    def hook(self, moment: str) -> None:
        """Run the test's hook, if it has one that can be run without CRIU's images. Raises HookFailed."""
        hook = self.test.hook
        if hook is None or "pycriu" in hook.read_text(errors="replace"):
            return
        with self.log.open("ab") as out:
            done = subprocess.run(
                [f"zdtm/{self.test.group}/{hook.name}", moment],
                cwd=self.place.top,
                env={**os.environ, "ZDTM_TEST_PID": str(self.root), "ZDTM_IMG_DIR": str(self.place.images)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                timeout=self.seconds,
                check=False,
            )
        if done.returncode != 0:
            raise HookFailed(f"the test's hook is not content ({moment.removeprefix('--')})")

    def output(self) -> str:
        """Return what the test wrote, finished or not."""
        for suffix in (".out", ".out.inprogress"):
            path = self.place.files / f"{self.test.program}{suffix}"
            if path.exists():
                return without_paths(path.read_text(errors="replace"), self.place.files)
        return ""

    def must_pass(self) -> None:
        """Tell the test to check itself, and raise Failed unless it is content."""
        try:
            pidfd = os.pidfd_open(self.root)
        except ProcessLookupError:
            raise Failed(f"it ended before it was told to: {reason_of_verdict(self.output())}") from None
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            if not poll.poll(self.seconds * 1000):
                raise Failed(f"it does not end when told to: {reason_of_verdict(self.output())}")
        except ProcessLookupError:
            pass
        finally:
            os.close(pidfd)
        finished = self.place.files / f"{self.test.program}.out"
        if not finished.exists():
            raise Failed(f"it died: {reason_of_verdict(self.output())}")
        lines = finished.read_text(errors="replace").splitlines()
        if not lines or "PASS" not in lines[-1].split():
            raise Failed(reason_of_verdict(self.output()))
