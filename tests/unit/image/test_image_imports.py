from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["header", "reader", "writer", "checksums"])
def test_xxhash_is_imported_only_when_something_is_hashed(module: str) -> None:
    program = f"import sys, orchestrator.image.{module}; print('xxhash' in sys.modules, 'trio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=30)
    assert done.stdout == "False False\n"
