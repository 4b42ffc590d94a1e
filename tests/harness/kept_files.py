"""The regular files of a job as they were at its checkpoint."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class KeptFiles:
    """Contents and times of some regular files.

    An image holds no file that has a name. A program that goes on after its checkpoint changes
    its files; they are put back in place (same inode) before the image is restored, as someone
    would who restores an old image.
    """

    contents: dict[Path, tuple[bytes, int, int]]

    @classmethod
    def of(cls, paths: Iterable[Path]) -> KeptFiles:
        kept: dict[Path, tuple[bytes, int, int]] = {}
        for path in paths:
            if path.is_file() and not path.is_symlink():
                status = path.stat()
                kept[path] = (path.read_bytes(), status.st_atime_ns, status.st_mtime_ns)
        return cls(kept)

    def put_back(self) -> None:
        for path, (data, atime_ns, mtime_ns) in self.contents.items():
            if path.read_bytes() != data:
                with path.open("r+b") as file:
                    file.write(data)
                    file.truncate(len(data))
            os.utime(path, ns=(atime_ns, mtime_ns))
