"""Stand between 'orch migrate' and 'orch receive', and do some harm: ``python middleman.py HARM COMMAND...``.

HARM is what happens when the destination says that the job is built ("ready"), or when the source lets go of it ("go").
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

_READY, _GO = b'{"what":"ready"}\n', b'{"what":"go"}\n'


def main() -> None:
    harm, command = sys.argv[1], sys.argv[2:]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as receiver:
        assert receiver.stdin is not None
        assert receiver.stdout is not None
        forth = threading.Thread(target=copy, args=(0, receiver.stdin.fileno(), harm), daemon=True)
        forth.start()
        while line := receiver.stdout.readline():
            if line == _READY:
                if harm == "source killed":
                    os.kill(os.getppid(), signal.SIGKILL)
                    forth.join()
                    receiver.wait()
                    os._exit(0)
                elif harm == "connection lost":
                    break
                elif harm == "nothing said":
                    forth.join()
                    os._exit(0)
            os.write(1, line)
        receiver.stdin.close()


def copy(source: int, to: int, harm: str) -> None:
    """Copy until the end. That the job may go comes by itself: the source waits before it says so."""
    while (data := os.read(source, 1 << 16)) and not (harm == "word lost" and data == _GO):
        while data:
            data = data[os.write(to, data) :]
    os._exit(0) if harm == "word lost" else os.close(to)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
