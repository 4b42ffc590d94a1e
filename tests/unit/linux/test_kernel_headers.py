"""Numbers and sizes against the installed headers. A name that the headers are too old for is not compared."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from types import ModuleType

import pytest

from orchestrator.linux import capabilities, kcmp, nsfs, pagemap, sockdiag

_INCLUDE = Path("/usr/include/linux")


def _defines(header: str) -> dict[str, int]:
    path = _INCLUDE / header
    if not path.exists():
        pytest.skip(f"no {path}")
    text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
    found: dict[str, int] = {}
    for name, text_value in re.findall(r"^#define\s+(\w+)\s+(.+?)\s*$", text, re.MULTILINE):
        number = re.fullmatch(r"\(?(0x[0-9a-fA-F]+|\d+)(?:U?L?L?)(?:\s*<<\s*(\d+))?\)?", text_value)
        if number:
            found[name] = int(number[1], 0) << int(number[2] or 0)
        elif io := re.fullmatch(r"_IO\((\w+),\s*(0x[0-9a-fA-F]+|\d+)\)", text_value):
            found[name] = (found.get(io[1]) or int(io[1], 0)) << 8 | int(io[2], 0)
    for body in re.findall(r"enum\s*\w*\s*\{(.*?)\}", text, re.DOTALL):
        names = re.findall(r"^\s*(\w+),?\s*$", body, re.MULTILINE)
        found |= {name: value for value, name in enumerate(names)}
    return found


@pytest.mark.parametrize(
    ("header", "module", "prefix", "at_least"),
    [
        ("capability.h", capabilities, "CAP_", 38),
        ("sched.h", nsfs, "CLONE_", 24),
        ("nsfs.h", nsfs, "NS_", 4),
        ("kcmp.h", kcmp, "KCMP_", 8),
    ],
)
def test_numbers(header: str, module: ModuleType, prefix: str, at_least: int) -> None:
    theirs = _defines(header)
    ours = {name: value for name, value in vars(module).items() if name.startswith(prefix) and isinstance(value, int)}
    common = ours.keys() & theirs.keys() - {"CAP_LAST_CAP"}
    assert {name: ours[name] for name in common} == {name: theirs[name] for name in common}
    assert len(common) >= at_least


def test_scan_numbers() -> None:
    theirs = _defines("fs.h")
    if "PAGE_IS_PRESENT" not in theirs:
        pytest.skip("headers before PAGEMAP_SCAN")
    ours = {name: value for name, value in vars(pagemap).items() if name.startswith(("PAGE_IS_", "PM_SCAN_"))}
    common = ours.keys() & theirs.keys()
    assert {name: ours[name] for name in common} == {name: theirs[name] for name in common}


def test_ioctl_number_is_that_of_its_struct() -> None:
    read_write, letter, number = 3, ord("f"), 16
    assert read_write << 30 | ctypes.sizeof(pagemap.pm_scan_arg) << 16 | letter << 8 | number == pagemap.PAGEMAP_SCAN


def test_socket_diag_numbers() -> None:
    theirs = _defines("unix_diag.h")
    names = ("NAME", "VFS", "PEER", "ICONS", "RQLEN", "SHUTDOWN", "UID")
    ours = {f"UNIX_DIAG_{name}": getattr(sockdiag, f"_UNIX_DIAG_{name}") for name in names}
    common = ours.keys() & theirs.keys()
    assert {name: ours[name] for name in common} == {name: theirs[name] for name in common}
    shown = sum(theirs.get(f"UDIAG_SHOW_{name}", 0) for name in ("NAME", "VFS", "PEER", "ICONS", "RQLEN", "UID"))
    assert shown | 0x40 == sockdiag._UDIAG_SHOW_ALL
