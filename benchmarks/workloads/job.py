"""Do what job.c does, for machines without a C compiler.

``python job.py KIND SIZE READY_FD ANSWER [CGROUP_PROCS]``; see job.c for the contract.
"""

from __future__ import annotations

import mmap
import os
import random
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable

CHILD_SAYS_FINE = 7
WORKERS = 8
SPARE = 60
MIB = 1 << 20

Check = Callable[[], bool]


def start_mem(mib: int) -> Check:
    """Fill private anonymous memory; the check compares every byte."""
    block = random.Random(1).randbytes(MIB)
    memory = mmap.mmap(-1, mib * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def expected(number: int) -> bytes:
        # Rotated, so that no two MiB are the same page for page.
        cut = number * 8 + 1
        return block[cut:] + block[:cut]

    for number in range(mib):
        memory[number * MIB : (number + 1) * MIB] = expected(number)
    return lambda: all(memory[number * MIB : (number + 1) * MIB] == expected(number) for number in range(mib))


def start_forked(mib: int, ready_fd: int) -> Check:
    """Fill memory, and fork workers that share it by copy-on-write; the check has each of them check it."""
    check = start_mem(mib)
    workers = start_tree(WORKERS, ready_fd, check)
    return lambda: check() & workers()


def start_tree(count: int, ready_fd: int, check: Check = lambda: True) -> Check:
    """Fork children that wait for SIGUSR1; the check ends each of them and looks at its exit status."""
    children = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            os.close(ready_fd)
            signal.sigwaitinfo({signal.SIGUSR1})
            os._exit(CHILD_SAYS_FINE if check() else 1)
        children.append(pid)

    return lambda: ended_well(children)


def start_threads(count: int) -> Check:
    """Start threads that wait for one event; the check releases and counts them."""
    barrier = threading.Barrier(count + 1)
    release = threading.Event()
    released: list[int] = []

    def wait() -> None:
        barrier.wait()
        release.wait()
        released.append(threading.get_ident())

    threads = [threading.Thread(target=wait) for _ in range(count)]
    for thread in threads:
        thread.start()
    barrier.wait()

    def check() -> bool:
        release.set()
        for thread in threads:
            thread.join()
        return len(released) == count

    return check


def open_files(count: int) -> Check:
    """Open pipes, pairs of sockets, files and event counters; the check reads from each."""
    pipes, pairs, others = [], [], []
    for number in range(count // 6):
        pipes.append(os.pipe())
        pairs.append(socket.socketpair())
        others.append((os.open(os.devnull, os.O_RDONLY), os.eventfd(number, os.EFD_NONBLOCK)))
        os.write(pipes[-1][1], number.to_bytes(4, "little"))
        pairs[-1][1].send(number.to_bytes(4, "little"))

    def check() -> bool:
        for number in range(count // 6):
            own = number.to_bytes(4, "little")
            if os.read(pipes[number][0], 4) != own or pairs[number][0].recv(4) != own:
                return False
            null, counter = others[number]
            if os.read(null, 1) or (number and os.eventfd_read(counter) != number):
                return False
        return True

    return check


def start_files(count: int, ready_fd: int) -> Check:
    """Open so many descriptors in this process and, if it may not have them, in children that end as a tree's do."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    processes = -(-count // (hard - SPARE))
    children = []
    reading, writing = os.pipe()
    for _ in range(processes - 1):
        pid = os.fork()
        if pid == 0:
            os.close(ready_fd)
            check_own = open_files(count // processes)
            os.write(writing, b"r")
            os.close(reading)
            os.close(writing)
            signal.sigwaitinfo({signal.SIGUSR1})
            os._exit(CHILD_SAYS_FINE if check_own() else 1)
        children.append(pid)
    for _ in children:
        os.read(reading, 1)
    os.close(reading)
    os.close(writing)
    check_own = open_files(count // processes)
    return lambda: check_own() & ended_well(children)


def ended_well(children: list[int]) -> bool:
    """Let children check themselves and end."""
    for pid in children:
        os.kill(pid, signal.SIGUSR1)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    return all(code == CHILD_SAYS_FINE for code in codes)


def beat_until_asked() -> int:
    """Beat once a millisecond until SIGUSR1; return the longest gap, in microseconds."""
    last, longest = time.monotonic_ns(), 0
    while True:
        # Not sigtimedwait: Python's, interrupted past its time-out, returns what no signal has brought.
        time.sleep(0.001)
        now = time.monotonic_ns()
        longest = max(longest, now - last)
        last = now
        if signal.SIGUSR1 in signal.sigpending():
            return longest // 1000


def main(arguments: list[str]) -> int:
    """Take the shape, say ready, beat, prove."""
    kind, size, ready_fd, answer, *cgroup_procs = arguments
    for path in cgroup_procs:
        with open(path, "w", encoding="ascii") as procs:
            procs.write("0")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    if kind == "mem":
        check = start_mem(int(size))
    elif kind == "forked":
        check = start_forked(int(size), int(ready_fd))
    elif kind == "tree":
        check = start_tree(int(size), int(ready_fd))
    elif kind == "threads":
        check = start_threads(int(size))
    elif kind == "files":
        check = start_files(int(size), int(ready_fd))
    else:
        return 2
    os.write(int(ready_fd), b"r")
    os.close(int(ready_fd))
    gap_us = beat_until_asked()
    fine = check()
    with open(answer, "w", encoding="ascii") as file:
        file.write(f"{'ok' if fine else 'bad'} {gap_us}\n")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
