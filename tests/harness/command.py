"""The `orch` command as a user runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.descendants import descendants, whereabouts
from harness.modes import in_mode

SECONDS = float(os.environ.get("ORCH_TESTS_SECONDS", "60"))
"""How long one command may take before it counts as hung."""


def orch_argv() -> list[str]:
    """Return how to start orch: the script beside this interpreter, or its module."""
    script = Path(sys.executable).parent / "orch"
    start = [str(script)] if script.exists() else [sys.executable, "-m", "orchestrator.cli"]
    return [*start, "--debug"] if os.environ.get("ORCH_TESTS_DEBUG") else start


@dataclass(frozen=True, slots=True)
class Finished:
    """What a command of orch left: its exit code and what it printed."""

    argv: tuple[str, ...]
    exit_code: int
    output: str
    errors: str

    def __str__(self) -> str:
        lines = [f"$ orch {' '.join(self.argv)}    -> {self.exit_code}"]
        lines += [f"  {line}" for line in (self.output + self.errors).splitlines()]
        return "\n".join(lines)


class CommandFailed(AssertionError):
    """A command of orch ended with another exit code than the test expects."""


@dataclass(slots=True)
class Orch:
    """Runs orch; its output goes to regular files, since a job may keep what it inherits."""

    logs: Path
    scratch: Path
    under: Sequence[str] = ()
    """A command that orch is started by, with that command's arguments."""
    _count: int = 0

    def environment(self) -> dict[str, str]:
        return {**os.environ, "TMPDIR": str(self.scratch), "PYTHONWARNINGS": "error"}

    def start(
        self, *argv: str, stdin: int = subprocess.DEVNULL, stdout: int | None = None
    ) -> tuple[subprocess.Popen[bytes], Path]:
        """Start a command; return it with the file that its output goes to, unless ``stdout`` is given."""
        self._count += 1
        stem = self.logs / f"{self._count:02}-{argv[0]}"
        with (
            stem.with_suffix(".out").open("wb") as out,
            stem.with_suffix(".err").open("wb") as err,
        ):
            process = subprocess.Popen(
                [*self.under, *orch_argv(), *in_mode(argv)],
                stdin=stdin,
                stdout=out if stdout is None else stdout,
                stderr=err,
                env=self.environment(),
            )
        return process, stem

    def finish(self, process: subprocess.Popen[bytes], stem: Path, argv: Sequence[str]) -> Finished:
        """Wait for a started command."""
        try:
            code = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            where = "\n".join(whereabouts(pid) for pid in [process.pid, *descendants(process.pid)])
            process.send_signal(signal.SIGKILL)
            process.wait()
            raise CommandFailed(
                f"orch {' '.join(argv)} took over {SECONDS:.0f} s\n{where}\n{self.transcript()}"
            ) from None
        out = stem.with_suffix(".out").read_text(errors="replace")
        err = stem.with_suffix(".err").read_text(errors="replace")
        return Finished(tuple(argv), code, out, err)

    def any_way(self, *argv: str) -> Finished:
        """Run a command to its end, whatever that is."""
        process, stem = self.start(*argv)
        return self.finish(process, stem, argv)

    def ok(self, *argv: str) -> Finished:
        """Run a command that must succeed."""
        return self.expect(0, *argv)

    def expect(self, exit_code: int, *argv: str) -> Finished:
        """Run a command that must end with this exit code."""
        finished = self.any_way(*argv)
        if finished.exit_code != exit_code:
            raise CommandFailed(f"expected exit code {exit_code}\n{finished}\n{self.transcript()}")
        if "Traceback (most recent call last)" in finished.errors:
            raise CommandFailed(f"orch printed a traceback\n{finished}")
        return finished

    def transcript(self) -> str:
        """Return everything that commands have printed so far."""
        parts = []
        for path in sorted(self.logs.glob("*.out")) + sorted(self.logs.glob("*.err")):
            text = path.read_text(errors="replace").strip()
            if text:
                parts.append(f"--- {path.name}\n{text}")
        return "\n".join(parts)
