"""A pool of processes that sums up squares, through a queue and through shared memory, in rounds."""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool
import os
import sys
from multiprocessing import Queue, shared_memory
from pathlib import Path

SLICES = 40
SIZE = 500


def view(memory: shared_memory.SharedMemory) -> memoryview[int]:
    """Return the shared numbers."""
    assert memory.buf is not None
    return memory.buf.cast("Q")


def work(task: tuple[str, int, int]) -> int:
    """Square a slice of the shared numbers in place, and return the sum of what came out."""
    name, number, modulus = task
    memory = shared_memory.SharedMemory(name)
    try:
        numbers = view(memory)
        total = 0
        for index in range(number * SIZE, (number + 1) * SIZE):
            numbers[index] = numbers[index] * numbers[index] % modulus
            total += numbers[index]
        numbers.release()
    finally:
        memory.close()
    results.put((number, total))
    return total


results: Queue[tuple[int, int]]


def start(queue: Queue[tuple[int, int]]) -> None:
    global results  # noqa: PLW0603  # how a pool's initializer hands things to its workers
    results = queue


def main() -> None:
    directory = Path(sys.argv[1])
    modulus = 1_000_000_007
    memory = shared_memory.SharedMemory(sys.argv[2], create=True, size=SLICES * SIZE * 8)
    numbers = view(memory)
    for index in range(SLICES * SIZE):
        numbers[index] = index + 2
    queue: Queue[tuple[int, int]] = multiprocessing.Queue()
    rounds = total = 0
    with multiprocessing.Pool(4, start, (queue,)) as pool:
        while not (directory / "stop").exists():
            tasks = [(memory.name, number, modulus) for number in range(SLICES)]
            returned = sum(pool.imap_unordered(work, tasks, chunksize=3))
            queued = sum(queue.get()[1] for _ in range(SLICES))
            if returned != queued:
                raise SystemExit(f"round {rounds}: {returned} returned, {queued} queued")
            total += returned
            rounds += 1
            (directory / "progress.new").write_text(str(rounds))
            os.replace(directory / "progress.new", directory / "progress")
    last = sum(numbers)
    numbers.release()
    memory.close()
    memory.unlink()
    (directory / "result.new").write_text(f"{rounds} {total} {last}")
    os.replace(directory / "result.new", directory / "result")


if __name__ == "__main__":
    main()
