"""A client for redis, as small as it can be."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

Reply = str | int | None | list["Reply"]
Address = str | tuple[str, int]


class ServerError(Exception):
    """The server answered with an error."""


class Redis:
    """One connection; leaving it waits until the server has closed its end too."""

    def __init__(self, address: Address) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(30)
            self._socket.connect(address)
        except BaseException:
            self._socket.close()
            raise
        self._lines = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None:
                self("QUIT")
                assert self._lines.read() == b""
        finally:
            self._lines.close()
            self._socket.close()

    def __call__(self, *words: str) -> Reply:
        """Send one command and return its reply."""
        return next(iter(self.pipeline([words])))

    def pipeline(self, commands: Iterable[Sequence[str]]) -> list[Reply]:
        """Send many commands at once and return their replies."""
        count = 0
        parts: list[bytes] = []
        for words in commands:
            count += 1
            parts.append(f"*{len(words)}\r\n".encode())
            parts += [f"${len(word.encode())}\r\n{word}\r\n".encode() for word in words]
        self._socket.sendall(b"".join(parts))
        return [self._reply() for _ in range(count)]

    def _reply(self) -> Reply:
        line = self._lines.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server closed the connection")
        kind, rest = line[:1], line[1:-2].decode()
        if kind == b"+":
            return rest
        if kind == b"-":
            raise ServerError(rest)
        if kind == b":":
            return int(rest)
        length = int(rest)
        if length < 0:
            return None
        if kind == b"$":
            return self._lines.read(length + 2)[:-2].decode()
        return [self._reply() for _ in range(length)]
