"""The C programs of the tests, compiled when they are first needed and kept until they change."""

from __future__ import annotations

import hashlib
import os
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "tests" / "kernel" / "programs"
BUILT = ROOT / "build" / "test-programs"
CFLAGS = ("-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread")


@cache
def _headers() -> bytes:
    return b"".join(path.read_bytes() for path in sorted(PROGRAMS.glob("*.h")))


@cache
def compiled(name: str) -> Path:
    """Return the executable of tests/kernel/programs/NAME.c."""
    return compile_source(PROGRAMS / f"{name}.c")


def compile_source(source: Path, *flags: str) -> Path:
    """Compile one C file unless that was done before with the same source and flags."""
    key = hashlib.sha256(source.read_bytes() + _headers() + repr((CFLAGS, flags)).encode()).hexdigest()[:12]
    target = BUILT / key / source.stem
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f"{source.stem}.{os.getpid()}")
        command = ["gcc", *CFLAGS, *flags, f"-I{PROGRAMS}", "-o", str(scratch), str(source), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != 0:
            raise AssertionError(f"{source} does not compile:\n{done.stderr}")
        scratch.rename(target)
    return target
