from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from image_samples import Sample, write_sample


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "job1.ckpt"


@pytest.fixture
def sample(target: Path) -> Sample:
    """Give a small image with a checksum table, in a directory with nothing else."""
    return write_sample(target)


@pytest.fixture
def listed(tmp_path: Path) -> Callable[[], list[str]]:
    """Give a function that lists the directory of the image."""
    return lambda: sorted(os.listdir(tmp_path))
