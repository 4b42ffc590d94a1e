#!/usr/bin/env python3
"""Count the primes below a limit with several processes, a queue and shared memory.

Work that takes a while and has one right answer: there are 16252325 primes below 300 000 000. Checkpoint it anywhere.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.sharedctypes import Synchronized

LIMIT = int(sys.argv[1]) if len(sys.argv) > 1 else 300_000_000
WORKERS = 4
STEP = 250_000


def count_primes(start: int, end: int) -> int:
    """Sieve one stretch."""
    sieve = bytearray([1]) * (end - start)
    if start == 0:
        sieve[:2] = b"\0\0"
    for divisor in range(2, int(end**0.5) + 1):
        first = max(divisor * divisor, (start + divisor - 1) // divisor * divisor)
        sieve[first - start :: divisor] = bytes(len(range(first, end, divisor)))
    return sum(sieve)


def work(tasks: multiprocessing.Queue[int | None], found: Synchronized[int]) -> None:
    """Take stretches from the queue until there are no more; add up in memory that all processes share."""
    while (start := tasks.get()) is not None:
        primes = count_primes(start, min(start + STEP, LIMIT))
        with found.get_lock():
            found.value += primes
        print(f"process {os.getpid():>6}: {primes:>5} primes from {start:>8} on, {found.value:>7} so far", flush=True)


def main() -> None:
    tasks: multiprocessing.Queue[int | None] = multiprocessing.Queue(maxsize=2 * WORKERS)
    found: Synchronized[int] = multiprocessing.Value("q", 0)
    workers = [multiprocessing.Process(target=work, args=(tasks, found)) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    for start in range(0, LIMIT, STEP):
        tasks.put(start)
    for _ in workers:
        tasks.put(None)
    for worker in workers:
        worker.join()
    print(f"{found.value} primes below {LIMIT}", flush=True)


if __name__ == "__main__":
    main()
