"""The `orch` command without root, also where only root can reach the checkout."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

NOBODY = 65534

# What a verb imports when it runs is imported while it may still be read.
_SOURCE = """
import importlib, os, sys
for module in sys.argv[1].split(","):
    importlib.import_module(module)
from orchestrator.cli.__main__ import main
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
os.chdir("/")
sys.exit(main(sys.argv[3:]))
"""


def orch_as_nobody(modules: Sequence[str], *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a command that has lost its privileges; ``modules`` are those that it will import."""
    loaded = ",".join(["orchestrator.errors", f"orchestrator.cli.{argv[0]}", *modules])
    return subprocess.run(
        [sys.executable, "-c", _SOURCE, loaded, str(NOBODY), *argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
