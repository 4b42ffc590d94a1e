"""What stands in for the standard streams that a restored job was once given."""

from __future__ import annotations

import os

from orchestrator.errors import UsageError


def given_streams(*, detached: bool, output: str | None) -> dict[str, int]:
    """Return descriptors by their keys in an image; ``output`` is a file to append to. Raises UsageError."""
    stdin, stdout, stderr = 0, 1, 2
    if detached:
        stdin = stdout = stderr = os.open(os.devnull, os.O_RDWR)
    if output is not None:
        try:
            stdout = stderr = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY, 0o644)
        except OSError as error:
            raise UsageError(f"the output file {output} cannot be opened: {error.strerror}") from error
    return {"stdio[0]": stdin, "stdio[1]": stdout, "stdio[2]": stderr}
