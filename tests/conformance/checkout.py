"""A checkout of CRIU that the user names: where its tests are, and what its own files say of them."""

from __future__ import annotations

import ast
import os
import shlex
import stat
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from conformance.description import Description, read_description

GROUPS = ("lib", "static", "transition")
BUILD_SECONDS = 1800


class CheckoutError(Exception):
    """The checkout is none, or its tests cannot be built."""


@dataclass(frozen=True, slots=True)
class Test:
    """One test program, by the name that the suite calls it: "static/env00"."""

    name: str
    path: Path

    @property
    def group(self) -> str:
        return self.path.parent.name

    @property
    def program(self) -> str:
        return self.path.name

    @property
    def moves_on(self) -> bool:
        """Tell the tests that are busy while they are saved from those that wait."""
        return self.group != "static"

    @property
    def hook(self) -> Path | None:
        return self._beside(".hook")

    @property
    def check(self) -> Path | None:
        """The program that tells whether the test makes sense here."""
        return self._beside(".checkskip")

    @property
    def description(self) -> Description:
        return read_description(self.path.with_name(self.path.name + ".desc"))

    def _beside(self, suffix: str) -> Path | None:
        path = self.path.with_name(self.path.name + suffix)
        return path if os.access(path, os.X_OK) else None


@dataclass(frozen=True)
class Checkout:
    """The top directory of a checkout."""

    path: Path

    def __post_init__(self) -> None:
        if not (self.suite / "static" / "Makefile").exists():
            raise CheckoutError(f"{self.path} is no checkout of CRIU: there is no test/zdtm/static/Makefile")

    @property
    def suite(self) -> Path:
        return self.path / "test" / "zdtm"

    @property
    def criu(self) -> Path | None:
        """The program itself, if it was built: it alone can tell what the suite calls a feature."""
        path = self.path / "criu" / "criu"
        return path if os.access(path, os.X_OK) else None

    def build(self, log: Path, jobs: int) -> None:
        """Build what is not built yet; what lacks a library is left out. Raises CheckoutError if nothing can be."""
        with log.open("wb") as out:
            for group in GROUPS:
                # A program that cannot be linked here must not keep the others from being built.
                subprocess.run(
                    ["make", "-k", f"-j{jobs}", "-C", str(self.suite / group)],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    timeout=BUILD_SECONDS,
                    check=False,
                )
        if not (self.suite / "lib" / "libzdtmtst.a").exists():
            raise CheckoutError(f"the tests cannot be built; see {log}")

    @cached_property
    def excluded(self) -> frozenset[str]:
        """Return what the suite itself counts as no test."""
        listed = ast.literal_eval((self.path / "test" / "zdtm.desc").read_text().strip())
        return frozenset(listed["exclude"])

    def tests(self) -> list[Test]:
        """List every program of the suite, in the order of their names."""
        found = []
        for group in GROUPS:
            for path in (self.suite / group).iterdir():
                name = f"{group}/{path.name}"
                if path.suffix in (".hook", ".checkskip") or name in self.excluded:
                    continue
                mode = path.lstat().st_mode
                if stat.S_ISREG(mode) and mode & stat.S_IXUSR:
                    found.append(Test(name, path))
        return sorted(found, key=lambda test: test.name)

    def command(self, test: Test) -> list[str]:
        """Ask the suite's own Makefile how a test is started, relative to its directory. Raises CheckoutError."""
        asked = subprocess.run(
            ["make", "--no-print-directory", "-n", "-C", str(test.path.parent), f"{test.program}.pid"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        lines = [line for line in asked.stdout.splitlines() if line.startswith(f"./{test.program} ")]
        if asked.returncode != 0 or not lines:
            raise CheckoutError(f"the suite has no rule to start {test.name}")
        return shlex.split(lines[-1])
