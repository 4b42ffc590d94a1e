"""How much memory there is to spare: limits of cgroups are found all the way up."""

from __future__ import annotations

from pathlib import Path

from orchestrator.linux.spare import _upwards, spare_bytes


def cgroup(path: Path, limit: str, usage: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    (path / "memory.max").write_text(f"{limit}\n")
    (path / "memory.current").write_text(f"{usage}\n")


def test_limits_of_all_cgroups_above_count(tmp_path: Path) -> None:
    cgroup(tmp_path / "a", "1000", 400)
    cgroup(tmp_path / "a" / "b", "max", 300)
    cgroup(tmp_path / "a" / "b" / "c", "200", 100)
    (tmp_path / "a" / "b" / "c" / "d").mkdir()
    assert list(_upwards(str(tmp_path), "/a/b/c/d", "memory.max", "memory.current")) == [(200, 100), (1000, 400)]


def test_without_a_process_the_machine_is_the_limit() -> None:
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    available = int(line.split()[1]) * 1024
    assert available / 2 < spare_bytes([]) < available * 2
