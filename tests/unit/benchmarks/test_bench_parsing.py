"""What is read from other programs and from /proc."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import pytest

from benchmarks import cgroup, machine
from benchmarks.bounds import TITLES, Bounds
from benchmarks.engines import parse_criu_stats, parse_json_stats, read_pid
from benchmarks.processes import BenchmarkError, children, last_message, memory_of, parse_rollup, peak_memory
from benchmarks.workload import parse_answer

CRIU_DUMP = """\
Displaying dump stats:
Freezing time: 105 us
Frozen time: 12977 us
Memory dump time: 634 us
Memory write time: 133 us
Memory pages scanned: 58 (0x3a)
Memory pages written: 30 (0x1e)
"""

MOUNTINFO = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
36 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:5 - cgroup2 cgroup2 rw
"""


ROLLUP = """\
5581d9e0a000-7ffd3a9f2000 ---p 00000000 00:00 0                          [rollup]
Rss:             1050176 kB
Pss:             1048704 kB
Pss_Dirty:       1048624 kB
AnonHugePages:   1048576 kB
"""


def test_criu_statistics_are_found_by_their_titles() -> None:
    told = parse_criu_stats(CRIU_DUMP)
    assert told["Freezing time"] == 105
    assert told["Frozen time"] == 12977
    assert told["Memory write time"] == 133
    assert told["Memory pages written"] == 30


def test_json_statistics_keep_numbers_only() -> None:
    assert parse_json_stats('{"frozen_us": 18000, "image": "x", "restore_us": 1.5}') == {
        "frozen_us": 18000.0,
        "restore_us": 1.5,
    }


def test_the_answer_of_a_sound_job_is_its_longest_gap() -> None:
    assert parse_answer("ok 18123\n") == 18123


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("bad 7\n", "damaged"),
        ("", "without an answer"),
        ("ok", "without an answer"),
        ("signal 9", "signal 9, without an answer"),
    ],
)
def test_a_job_that_is_not_sound_has_no_figures(text: str, reason: str) -> None:
    with pytest.raises(BenchmarkError, match=reason):
        parse_answer(text)


@pytest.mark.parametrize("text", [None, "", "none\n"])
def test_a_pidfile_without_a_pid_is_an_error(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "pid"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BenchmarkError, match="no PID"):
        read_pid(path)


def test_cgroup2_is_found_beside_version_1() -> None:
    assert cgroup.parse_mountinfo(MOUNTINFO) == Path("/sys/fs/cgroup/unified")
    assert cgroup.parse_mountinfo(MOUNTINFO.replace("cgroup2", "cgroup")) is None


def test_own_cgroup_is_the_version_2_line() -> None:
    assert cgroup.parse_own("6:freezer:/jobs\n0::/user.slice/a\n") == "user.slice/a"
    assert cgroup.parse_own("0::/\n") == ""


def test_the_machine_is_described_without_names() -> None:
    assert machine.parse_cpu("processor\t: 0\nmodel name\t: AMD EPYC\n") == "AMD EPYC"
    assert machine.parse_release("6.18.44-someones-build-9") == "6.18.44"
    assert machine.parse_choice("always [madvise] never") == "madvise"


def test_bounds_come_back_from_json_and_each_has_a_title() -> None:
    bounds = Bounds.from_json(json.dumps({key: number for number, key in enumerate(TITLES)}))
    assert bounds.copy_ms == 0
    assert bounds.read_fresh_ms == len(TITLES) - 1


def test_a_failure_is_told_by_the_last_line_that_is_not_a_hint() -> None:
    assert last_message("orch: working\norch: no such job\nhint: try ps\n\n") == "orch: no such job"
    assert last_message("") == "(no message)"


def test_peak_memory_of_this_process_is_what_the_kernel_counts() -> None:
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert peak_memory(os.getpid()) == pytest.approx(own, rel=0.1)


def test_fields_of_a_rollup_are_found_by_their_whole_names() -> None:
    assert parse_rollup(ROLLUP, "Pss") == 1_048_704 * 1024
    assert parse_rollup(ROLLUP, "AnonHugePages") == 1 << 30
    assert parse_rollup(ROLLUP, "Swap") == 0


def test_a_process_that_is_gone_has_no_memory_and_no_children() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    assert peak_memory(pid) == 0
    assert memory_of([pid], "Pss") == 0
    assert children(pid) == []
