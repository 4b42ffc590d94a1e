"""Do what job.c does, for machines without a C compiler.

``python job.py KIND SIZE READY_FD ANSWER [CGROUP_PROCS]``; see job.c for the contract.
"""

from __future__ import annotations

import ctypes
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

HUGE_PAGE = 2 * MIB
REWRITTEN_MIB = 16
FILLED_MIB = 1

Check = Callable[[], bool]
Shape = Callable[[int], Check]


class Memory:
    """Private anonymous memory, full; contents of different seeds differ."""

    def __init__(self, mib: int, *, huge: bool = False, seed: int = 1) -> None:
        self._block = random.Random(seed).randbytes(MIB)
        self._mib = mib
        self._view = map_huge(mib * MIB) if huge else map_private(mib * MIB)
        self.fill(mib)

    def _expected(self, number: int) -> bytes:
        # Rotated, so that no two MiB are the same page for page.
        cut = number * 8 + 1
        return self._block[cut:] + self._block[:cut]

    def fill(self, mib: int) -> None:
        """Write the first so many MiB."""
        for number in range(min(mib, self._mib)):
            self._view[number * MIB : (number + 1) * MIB] = self._expected(number)

    def check(self) -> bool:
        """Compare every byte."""
        return all(
            self._view[number * MIB : (number + 1) * MIB] == self._expected(number) for number in range(self._mib)
        )


def map_private(size: int) -> memoryview:
    """Map private anonymous memory."""
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def map_huge(size: int) -> memoryview:
    """Map memory that begins with a huge page; what is beside it in the mapping is never touched."""
    mapped = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start = -ctypes.addressof(ctypes.c_char.from_buffer(mapped)) % HUGE_PAGE
    mapped.madvise(mmap.MADV_HUGEPAGE, start, size)
    return memoryview(mapped)[start : start + size]


def start_forked(mib: int, ready_fd: int) -> Check:
    """Fill memory, and fork workers that share it by copy-on-write; the check has each of them check it."""
    memory = Memory(mib)
    workers = start_tree(WORKERS, ready_fd, lambda _: memory.check)
    return lambda: memory.check() & workers()


def start_filled(count: int, ready_fd: int) -> Check:
    """Fork children that fill memory of their own each, and do so too; the check has each of them check its own."""
    children = start_tree(count, ready_fd, lambda number: Memory(FILLED_MIB, seed=number + 1).check)
    memory = Memory(FILLED_MIB)
    return lambda: memory.check() & children()


def start_tree(count: int, ready_fd: int, shape: Shape = lambda _: lambda: True) -> Check:
    """Fork children, numbered from 1 on, that take a shape and wait for SIGUSR1; all have it when this returns.

    The check ends each of them and looks at its exit status.
    """
    children = []
    reading, writing = os.pipe()
    for number in range(1, count + 1):
        pid = os.fork()
        if pid == 0:
            os.close(ready_fd)
            check = shape(number)
            os.write(writing, b"r")
            os.close(reading)
            os.close(writing)
            signal.sigwaitinfo({signal.SIGUSR1})
            os._exit(CHILD_SAYS_FINE if check() else 1)
        children.append(pid)
    os.close(writing)
    for _ in children:
        if not os.read(reading, 1):
            raise ChildProcessError
    os.close(reading)
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
    children = start_tree(processes - 1, ready_fd, lambda _: open_files(count // processes))
    check_own = open_files(count // processes)
    return lambda: check_own() & children()


def ended_well(children: list[int]) -> bool:
    """Let children check themselves and end."""
    for pid in children:
        os.kill(pid, signal.SIGUSR1)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    return all(code == CHILD_SAYS_FINE for code in codes)


def write_file(path: str, text: str) -> None:
    """Write a file anew."""
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def beat_until_asked(memory: Memory | None, answer: str) -> int:
    """Beat once a millisecond until SIGUSR1, write memory again on SIGUSR2; return the longest gap, in microseconds."""
    last, longest = time.monotonic_ns(), 0
    while True:
        # Not sigtimedwait: Python's, interrupted past its time-out, returns what no signal has brought.
        time.sleep(0.001)
        now = time.monotonic_ns()
        longest = max(longest, now - last)
        last = now
        asked = signal.sigpending()
        if signal.SIGUSR1 in asked:
            return longest // 1000
        if memory is not None and signal.SIGUSR2 in asked:
            signal.sigwait({signal.SIGUSR2})
            memory.fill(REWRITTEN_MIB)
            write_file(answer, "wrote\n")


def take_shape(kind: str, size: int, ready_fd: int) -> Check | None:
    """Become what a kind other than mem is; None if there is none of that name."""
    match kind:
        case "huge":
            return Memory(size, huge=True).check
        case "forked":
            return start_forked(size, ready_fd)
        case "tree":
            return start_tree(size, ready_fd)
        case "filled":
            return start_filled(size, ready_fd)
        case "threads":
            return start_threads(size)
        case "files":
            return start_files(size, ready_fd)
    return None


def main(arguments: list[str]) -> int:
    """Take the shape, say ready, beat, prove."""
    kind, size, ready_fd, answer, *cgroup_procs = arguments
    for path in cgroup_procs:
        write_file(path, "0")
    memory = None
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    if kind == "mem":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        memory = Memory(int(size))
    check = take_shape(kind, int(size), int(ready_fd)) if memory is None else memory.check
    if check is None:
        return 2
    os.write(int(ready_fd), b"r")
    os.close(int(ready_fd))
    gap_us = beat_until_asked(memory, answer)
    fine = check()
    write_file(answer, f"{'ok' if fine else 'bad'} {gap_us}\n")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
