"""Open files: positions and flags, who shares them, and the kernel objects behind descriptors."""

from __future__ import annotations

import pytest

from harness.program import Program, Run
from harness.ways import WAYS, Way

PROGRAMS = [
    Program("file_positions"),
    Program("file_sharing"),
    Program("unlinked_file"),
    Program("removed_directories"),
    Program("names_gone"),
    Program("odd_names"),
    Program("leases"),
    Program("broken_leases"),
    Program("symbolic_links"),
    Program("shared_proc_files"),
    Program("watches", checkpoint_options=("--external", "inotify")),
    Program("fanotify_marks"),
    Program("io_uring_idle", checkpoint_options=("--external", "io_uring")),
    Program("tun_devices"),
    Program("made_up_files"),
    Program("dead_processes"),
    Program("namespace_files"),
    Program("namespace_files", ("leaves",)),
    Program("bpf_maps"),
    Program("aio_idle"),
    Program("aio_idle", checkpoint_options=("--external", "aio")),
    Program("aio_completions"),
    Program("aio_traffic"),
    Program("deleted_executable", ("replaced",)),
    Program("deleted_executable", ("removed",)),
    Program("directories"),
    Program("pipes"),
    Program("pipes_across_fork"),
    Program("fifos"),
    Program("devices"),
    Program("eventfds"),
    Program("epolls"),
    Program("epoll_shared"),
    Program("timerfds"),
    Program("timerfd_clocks"),
    Program("signalfds"),
    Program("proc_files"),
    Program("flock_owner"),
    Program("removed_names"),
    Program("removed_device"),
    Program("memfd_executed"),
    Program("many_descriptors", ("300", "3")),
]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.id)
def test_survives(run: Run, way: Way) -> None:
    way(run)
