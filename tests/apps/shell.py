"""Have an interactive bash in a pseudo-terminal, with a job in the foreground and a stopped one in the background."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import sys
import termios
import time
from pathlib import Path

DIRECTORY = Path(sys.argv[1])
ENVIRONMENT = {"PATH": os.environ["PATH"], "PS1": "<prompt>", "TERM": "dumb", "HISTFILE": "/dev/null"}


class Shell:
    """What a person at a terminal sees and types."""

    def __init__(self) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.closerange(3, 1024)
            os.execve("/bin/bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"], ENVIRONMENT)
        self.seen = b""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def until(self, wanted: str) -> str:
        """Read up to a text and return what came before it."""
        while (end := self.seen.find(wanted.encode())) < 0:
            self.seen += os.read(self.master, 4096)
        before, self.seen = self.seen[:end], self.seen[end + len(wanted) :]
        return before.decode()

    def foreground(self) -> int:
        (group,) = struct.unpack("i", fcntl.ioctl(self.master, termios.TIOCGPGRP, bytes(4)))
        return int(group)


def publish(name: str, text: str) -> None:
    scratch = DIRECTORY / f".{name}"
    scratch.write_text(text)
    scratch.rename(DIRECTORY / name)


# Whoever opens a terminal on this machine meanwhile gets one of these numbers, and not the shell's.
spared = [os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY) for _ in range(20 + os.getpid() * 16 % 512)]
shell = Shell()
for fd in spared:
    os.close(fd)
fcntl.ioctl(shell.master, termios.TIOCSWINSZ, struct.pack("4H", 33, 77, 0, 0))
shell.until("<prompt>")
shell.type("trap 'echo size $(stty size)' WINCH\n")
shell.until("<prompt>")
shell.type("sh -c 'echo rea''dy; read line; echo \"came back with $line\"'\n")
shell.until("ready\r\n")
shell.type("\x1a")
shell.until("Stopped")
shell.until("<prompt>")
shell.type("sed -u s/^/answer:/\n")
shell.until("\r\n")

rounds = 0
groups = set()
while not (DIRECTORY / "stop").exists():
    shell.type(f"line {rounds}\n")
    shell.until(f"line {rounds}\r\n")
    shell.until(f"answer:line {rounds}\r\n")
    groups.add(shell.foreground())
    rounds += 1
    publish("progress", str(rounds))
    time.sleep(0.02)

shell.type("\x04")
shell.until("<prompt>")
shell.type("jobs\n")
stopped = "Stopped" in shell.until("<prompt>")
shell.type("fg\n")
shell.until("\r\n")
shell.until("\r\n")
shell.type("greetings\n")
shell.until("came back with greetings\r\n")
shell.until("<prompt>")
fcntl.ioctl(shell.master, termios.TIOCSWINSZ, struct.pack("4H", 44, 99, 0, 0))
shell.type("\n")
shell.until("size 44 99\r\n")
shell.until("<prompt>")
shell.type("cat\n")
shell.until("cat\r\n")
shell.type("mew\n")
shell.until("mew\r\n")
shell.until("mew\r\n")  # it runs, and in the foreground: ^C is for it
shell.type("\x03")
shell.until("<prompt>")
shell.type("exit 7\n")
_, status = os.waitpid(shell.pid, 0)
publish("result", f"{len(groups)} {int(stopped)} {os.waitstatus_to_exitcode(status)}")
