"""Settings under /proc/sys/net of a network namespace, as far as they differ from those of a new one."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from orchestrator.linux.procfs import read_record

_ROOT = "/proc/sys/net"
_TEMPLATES = {"conf": "default", "neigh": "lo"}  # only the initial namespace shows neigh/default
_SKIPPED = frozenset(("stable_secret", "flush"))


def read_net_sysctls() -> dict[str, str]:
    """Read every setting of our own network namespace that can be written."""
    values = {}
    for directory, _, names in os.walk(_ROOT):
        for name in names:
            path = f"{directory}/{name}"
            if name in _SKIPPED or not os.stat(path).st_mode & stat.S_IWUSR:
                continue
            try:
                values[path] = read_record(path).decode().rstrip("\n")
            except OSError:  # some cannot be read unless set, and then have no value
                continue
    return values


def changed_sysctls(values: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that differ from those of a new namespace.

    An interface that a new namespace does not have starts out with what its template says.
    """
    return {path: value for path, value in values.items() if value != _initial(path, new)}


def _initial(path: str, new: Mapping[str, str]) -> str | None:
    if path in new:
        return new[path]
    words = path.split("/")  # "", proc, sys, net, ipv4, conf, eth0, forwarding
    if len(words) == 8 and words[5] in _TEMPLATES:
        return new.get("/".join([*words[:6], _TEMPLATES[words[5]], words[7]]))
    return None


def write_net_sysctls(values: Mapping[str, str]) -> None:
    """Write settings of our own network namespace; those that change others come first. Raises OSError."""
    for path in sorted(values, key=_order):
        try:
            with open(path, "wb", buffering=0) as file:
                file.write(values[path].encode() + b"\n")
        except OSError as error:
            error.add_note(f"write {path}")
            raise


def _order(path: str) -> tuple[int, str]:
    words = path.split("/")
    return (0 if words[-1] == "ip_forward" else 1 if "all" in words else 2 if "default" in words else 3), path
