"""The processors that the kernel counts with."""

from __future__ import annotations


def possible_cpus() -> int:
    """Count the processors that this machine may ever have. See cpu_possible_mask."""
    with open("/sys/devices/system/cpu/possible", encoding="ascii") as file:
        ranges = [part.split("-") for part in file.read().strip().split(",")]
    return sum(int(one[-1]) - int(one[0]) + 1 for one in ranges)
