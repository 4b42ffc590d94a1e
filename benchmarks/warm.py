"""Touch memory and give it back: ``python -m benchmarks.warm MIB``.

A virtual machine may hand free memory back to its host, and meet it again at many times the cost of a fault. What is
measured right after this meets memory that the machine has. A process of its own, for the sake of its peak memory.
"""

from __future__ import annotations

import mmap
import sys

MIB = 1 << 20
LEAST_MIB = 256


def available_mib() -> int:
    """Say how much memory there is that nobody needs."""
    with open("/proc/meminfo", encoding="ascii") as lines:
        return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("MemAvailable:"))


def main(arguments: list[str]) -> int:
    """Touch as much private memory as named."""
    mib = min(max(int(arguments[0]), LEAST_MIB), available_mib() * 3 // 4)
    with mmap.mmap(-1, mib * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as mapped:
        for page in range(0, mib * MIB, mmap.PAGESIZE):
            mapped[page] = 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
