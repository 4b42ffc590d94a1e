"""What a test says of itself: the suite's .desc files, each a Python dictionary."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

_SUFFIXES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_CHANGES = frozenset(
    ("--tcp-close", "--skip-in-flight", "--cgroup-root", "--join-ns", "--network-lock", "--manage-cgroups=ignore")
)
_COUNTERPARTS = {
    "--tcp-established": ("--tcp", "keep"),
    "--tcp-close": ("--tcp", "close-all"),
    "--ext-unix-sk": ("--external", "unix"),
}


@dataclass(frozen=True, slots=True)
class Description:
    """The fields that matter to a run on the host."""

    flavours: frozenset[str] = frozenset({"h", "ns", "uns"})
    flags: frozenset[str] = frozenset()
    features: tuple[str, ...] = ()
    architecture: str | None = None
    seconds: int = 30
    options: tuple[str, ...] = ()
    """What CRIU is told when it saves the test."""
    at_restore: tuple[str, ...] = ()
    """What CRIU is told when it restores the test."""

    @property
    def asks_for_change(self) -> str | None:
        """Return the option by which CRIU is told to bring the test back as something else than it was."""
        return next((option for option in self.options + self.at_restore if option in _CHANGES), None)

    @property
    def lacks_counterpart(self) -> str | None:
        """Return that option if orch has nothing like it."""
        return None if self.asks_for_change in _COUNTERPARTS else self.asks_for_change

    @property
    def as_root(self) -> bool:
        """Whether the test keeps root's credentials."""
        return "suid" in self.flags

    @property
    def alone(self) -> bool:
        """Whether no other test may run beside it."""
        return "excl" in self.flags

    @property
    def may_be_refused(self) -> bool:
        """Whether CRIU must refuse to save it; orch may, or may do better."""
        return "crfail" in self.flags

    def checkpoint_options(self) -> list[str]:
        """Tell orch what CRIU is told, where it has an option for it."""
        found: list[str] = []
        for option, value in pairwise((*self.options, "")):
            if option in _COUNTERPARTS:
                found += _COUNTERPARTS[option]
            elif option == "--ghost-limit":
                found += [option, str(_bytes(value))]
        return found

    def restore_options(self) -> list[str]:
        """Tell orch what CRIU is told, where it has an option for it."""
        return [*_COUNTERPARTS["--tcp-close"]] if "--tcp-close" in self.at_restore else []


def _bytes(text: str) -> int:
    return int(text[:-1]) * _SUFFIXES[text[-1]] if text[-1] in _SUFFIXES else int(text)


def parse_description(text: str) -> Description:
    """Read a description. One that is computed, from the environment, asks for something special: never by itself."""
    if not text.strip():
        return Description()
    try:
        fields: dict[str, Any] = ast.literal_eval(text.strip())
    except ValueError:
        return Description(flags=frozenset({"noauto"}))
    options, saved, restored = (fields.get(name, "") for name in ("opts", "dopts", "ropts"))
    return Description(
        flavours=frozenset(fields.get("flavor", "h ns uns").split()),
        flags=frozenset(fields.get("flags", "").split()),
        features=tuple(fields.get("feature", "").split()),
        architecture=fields.get("arch"),
        seconds=int(fields.get("timeout") or 30),
        options=(*options.split(), *saved.split()),
        at_restore=(*options.split(), *restored.split()),
    )


def read_description(path: Path) -> Description:
    """Read a test's description; most have none."""
    return parse_description(path.read_text()) if path.exists() else Description()
