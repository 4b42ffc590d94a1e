"""The job's own cgroups, with plain files in place of the controllers that this machine may not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import CannotHonour, NoSuchJob
from orchestrator.kinds.task import places
from orchestrator.kinds.task.own_cgroups import OwnCgroupMaker, OwnCgroups, is_setting

SETTINGS = {
    "memory.max": "104857600\n",
    "cpu.max": "50000 100000\n",
    "cpu.weight": "100\n",
    "io.max": "8:0 rbps=1048576 wbps=max\n8:16 rbps=max wbps=2097152\n",
    "pids.max": "32\n",
    "cpuset.cpus": "\n",
}
OTHERS = {"memory.peak": "5\n", "cgroup.procs": "", "memory.pressure": "some\n", "cgroup.freeze": "0\n"}


def cgroup(directory: Path, files: dict[str, str]) -> Path:
    directory.mkdir(parents=True)
    for name, value in files.items():
        (directory / name).write_text(value)
    return directory


@pytest.fixture
def old(tmp_path: Path) -> OwnCgroups:
    files = {"cgroup.threads": "", "cgroup.type": "domain\n", "cgroup.subtree_control": "memory\n"}
    top = cgroup(tmp_path / "old" / "job", {**SETTINGS, **OTHERS, **files})
    cgroup(top / "sub", {"cgroup.threads": "7\n", "cgroup.type": "threaded\n", "memory.max": "4096\n"})
    return OwnCgroups(str(top), "/old/job", "")


def test_what_is_a_setting() -> None:
    assert all(is_setting(name, 0o644) for name in SETTINGS)
    assert not any(is_setting(name, 0o644) for name in OTHERS)
    assert not is_setting("memory.stat", 0o444)
    assert not is_setting("memory.reclaim", 0o200)
    assert is_setting("cgroup.pressure", 0o644)


def test_where_tasks_are(old: OwnCgroups) -> None:
    assert old.of_process({"": "/old/job/sub"}) == "sub"
    assert old.of_process({"": "/old/job"}) == ""
    assert old.of_process({"": "/old/jobs"}) == ""
    assert old.of_thread(7, "") == "sub"
    assert old.of_thread(7, "sub") is None
    assert old.of_thread(8, "sub") is None


def test_settings_return(old: OwnCgroups, tmp_path: Path) -> None:
    usual = dict.fromkeys(SETTINGS, "max\n") | {"cpuset.cpus": "\n", "cgroup.type": "", "cgroup.subtree_control": ""}
    top = cgroup(tmp_path / "new" / "job", usual)
    (top / "io.max").write_text("")
    maker = OwnCgroupMaker(str(top), old.directories())
    cgroup(top / "sub", {"memory.max": "max\n", "cgroup.type": "domain\n"})
    maker.make()
    assert (top / "sub" / "cgroup.type").read_text().startswith("threaded")
    maker.settle()
    assert (top / "memory.max").read_text().startswith("104857600")
    assert (top / "sub" / "memory.max").read_text().startswith("4096")
    assert (top / "cgroup.subtree_control").read_text() == "+memory"


def test_a_limit_whose_controller_is_not_there_is_named(old: OwnCgroups, tmp_path: Path) -> None:
    top = cgroup(tmp_path / "new" / "job", {name: "max\n" for name in SETTINGS if name != "memory.max"})
    maker = OwnCgroupMaker(str(top), old.directories())
    with pytest.raises(CannotHonour, match=r"memory\.max set to '104857600'"):
        maker.settle()


@pytest.mark.parametrize("systemd_runs", [True, False])
def test_the_hierarchy_of_systemd_is_left_alone_where_that_runs(
    monkeypatch: pytest.MonkeyPatch, systemd_runs: bool
) -> None:
    def unmounted(_: str) -> object:
        raise OSError

    monkeypatch.setattr(places, "own_places", lambda: {"name=systemd": "/"})
    monkeypatch.setattr(places, "hierarchy_root", unmounted)
    monkeypatch.setattr("os.path.isdir", lambda _: systemd_runs)
    assert places.Elsewhere().watches is not systemd_runs


def test_a_job_that_has_just_ended_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(NoSuchJob, match="gone"):
        OwnCgroups(str(tmp_path / "ended"), "/ended", "")
