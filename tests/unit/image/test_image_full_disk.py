"""A disk that is full, read-only or closed to us: one error that says what to do, and the old image stays."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from image_samples import MACHINE, PAGE_SIZE, Sample, read_everything

from orchestrator.errors import ImageWriteFailed
from orchestrator.image.preallocate import preallocate
from orchestrator.image.writer import ImageWriter

pytest_plugins = ["image_fixtures"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What happens on a file system of 4 MiB that has an image already."""
    directory = tmp_path_factory.mktemp("small")
    unshare = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*unshare, "true"], check=False, capture_output=True, timeout=30).returncode:
        pytest.skip("needs mount namespaces")
    script = 'mount -t tmpfs -o size=4m none "$1" && exec "$2" "$3" "$1"'
    program = Path(__file__).with_name("full_disk.py")
    arguments = [*unshare, "sh", "-c", script, "sh", str(directory), sys.executable, str(program)]
    done = subprocess.run(arguments, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_full_disk_is_known_at_the_beginning(found: dict[str, Any]) -> None:
    assert found["full"]["message"] == f"cannot write image {found['path']}: No space left on device"
    assert found["full"]["hint"].startswith("free 9 MiB on the file system of ")


def test_free_space_is_compared_where_it_cannot_be_reserved(found: dict[str, Any]) -> None:
    assert found["free space compared"] == {"errno": errno.ENOSPC}


def test_file_size_limit(found: dict[str, Any]) -> None:
    assert found["file size limit"]["message"].endswith("File too large")
    assert "ulimit -f" in found["file size limit"]["hint"]


def test_read_only_file_system(found: dict[str, Any]) -> None:
    assert found["read-only"]["message"].endswith("Read-only file system")
    assert "mounted read-only" in found["read-only"]["hint"]


def test_old_image_survives_and_nothing_else_is_left(found: dict[str, Any]) -> None:
    assert found["listed"] == ["job1.ckpt"]
    assert found["now"] == found["old"]
    assert found["verified"] == 1 << 20


def test_a_directory_that_may_not_be_written(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root")
    os.seteuid(65534)
    try:
        with pytest.raises(ImageWriteFailed, match="Permission denied") as raised:
            ImageWriter(tmp_path / "image", architecture=MACHINE, page_size=PAGE_SIZE)
    finally:
        os.seteuid(0)
    assert raised.value.hint is not None
    assert "writable" in raised.value.hint


@pytest.mark.parametrize(
    ("number", "word"), [(errno.ENOSPC, "free "), (errno.EDQUOT, "quota"), (errno.EIO, None), (errno.EPERM, "writable")]
)
def test_a_failure_in_a_task_becomes_the_same_error(target: Path, number: int, word: str | None) -> None:
    with ImageWriter(target, architecture=MACHINE, page_size=PAGE_SIZE) as writer:
        writer.begin(b"", PAGE_SIZE)
        failed = writer.failed(OSError(number, os.strerror(number)))
    assert str(failed) == f"cannot write image {target}: {os.strerror(number)}"
    assert word in failed.hint if word and failed.hint else failed.hint is word
    assert failed.exit_code == 36


def test_page_data_cut_by_somebody_else_is_not_committed(sample: Sample) -> None:
    with ImageWriter(sample.path, architecture=MACHINE, page_size=PAGE_SIZE) as writer:
        writer.begin(b"", 4 * PAGE_SIZE)
        os.ftruncate(writer.fd, 2 * PAGE_SIZE)
        with pytest.raises(ImageWriteFailed, match="cut short"):
            writer.commit(checksums=True)
    assert read_everything(sample.path) == (sample.metadata, sample.pages)


def test_preallocation_reserves_blocks_and_sets_the_length(target: Path) -> None:
    target.touch()
    with open(target, "r+b") as file:
        preallocate(file.fileno(), 1 << 20)
        status = os.fstat(file.fileno())
    assert status.st_size == 1 << 20
    assert status.st_blocks * 512 >= 1 << 20
