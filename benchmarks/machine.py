"""Describe the machine that the figures come from, without naming it."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path


def describe(directory: Path) -> dict[str, str]:
    """Say what matters for the figures; ``directory`` is where the images go."""
    pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return {
        "processor": parse_cpu(Path("/proc/cpuinfo").read_text()) or platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / (1 << 30):.0f} GiB",
        "kernel": f"Linux {parse_release(platform.release())} {platform.machine()}",
        "transparent huge pages": parse_choice(pages.read_text()) if pages.exists() else "none",
        "image file system": filesystem_of(directory, Path("/proc/self/mountinfo").read_text()),
        "Python": platform.python_version(),
    }


def parse_cpu(text: str) -> str:
    """Find the processor's name in the text of /proc/cpuinfo."""
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def parse_release(release: str) -> str:
    """Cut a kernel release to its numbers; what follows names its builder."""
    found = re.match(r"\d+(\.\d+)*", release)
    return found[0] if found else release


def parse_choice(text: str) -> str:
    """Find the value in brackets."""
    found = re.search(r"\[(\w+)\]", text)
    return found[1] if found else text.strip()


def filesystem_of(directory: Path, mountinfo: str) -> str:
    """Find the type of the file system that holds a directory."""
    device = os.stat(directory).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[2] == wanted:
            return after.split()[0]
    return "unknown"
