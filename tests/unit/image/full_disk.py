"""Run in a mount namespace of its own with a 4 MiB tmpfs as argument: fill it, and write what happened as JSON."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from orchestrator.errors import ImageWriteFailed
from orchestrator.image.preallocate import reserve_by_length
from orchestrator.image.reader import ImageFile
from orchestrator.image.writer import ImageWriter


def write(path: str, page_bytes: int) -> str:
    with ImageWriter(path, architecture=os.uname().machine, page_size=4096) as writer:
        writer.begin(b"metadata", page_bytes)
        writer.commit(checksums=True)
    return str(writer.image_id)


def failure(call: Callable[[], object]) -> dict[str, Any]:
    try:
        call()
    except ImageWriteFailed as error:
        return {"message": str(error), "hint": error.hint}
    except OSError as error:
        return {"errno": error.errno}
    return {}


def compare_with_free_space(directory: str) -> None:
    fd = os.open(directory, os.O_TMPFILE | os.O_RDWR)
    try:
        reserve_by_length(fd, 1 << 20)
        if os.fstat(fd).st_size != 1 << 20:
            raise AssertionError("the length was not set")
        reserve_by_length(fd, 8 << 20)
    finally:
        os.close(fd)


def main() -> None:
    directory = sys.argv[1]
    path = f"{directory}/job1.ckpt"
    found: dict[str, Any] = {"path": path, "old": write(path, 1 << 20)}
    found["full"] = failure(lambda: write(path, 8 << 20))
    found["free space compared"] = failure(lambda: compare_with_free_space(directory))

    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    found["file size limit"] = failure(lambda: write(path, 2 << 20))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    subprocess.run(["mount", "-o", "remount,ro", directory], check=True)
    found["read-only"] = failure(lambda: write(path, 4096))
    found["listed"] = os.listdir(directory)
    with ImageFile.open(path) as image:
        found["now"] = str(image.header.image_id)
        found["verified"] = image.verify_pages()
    json.dump(found, sys.stdout)


main()
