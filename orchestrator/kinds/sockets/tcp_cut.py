"""Give up TCP connections of an image as it is restored: the job finds them ended."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from orchestrator.errors import CannotHonour
from orchestrator.kinds.files.kind import OpenFile
from orchestrator.kinds.sockets.tcp_connection import TcpConnection
from orchestrator.kinds.sockets.tcp_ended import TcpEnded, without_counting

Cut = Literal["close", "close-all"]
"""Those that lead outside; or those within the job, too."""


def cut_connections(files: Iterable[OpenFile], which: Cut) -> list[OpenFile]:
    """Return open files with ended connections in place of those that are given up."""
    return [
        msgspec.structs.replace(file, body=_ended(file.body))
        if isinstance(file.body, TcpConnection) and (file.body.filter or which == "close-all")
        else file
        for file in files
    ]


def _ended(body: TcpConnection) -> TcpEnded:
    if body.state.urgent >= 0:
        raise CannotHonour(f"the TCP connection {body.local} to {body.remote} cannot be cut: urgent data waits in it")
    return TcpEnded(
        body.ino, body.family, body.state.receive_queue, bool(body.filter), without_counting(body.options), body.owner
    )
