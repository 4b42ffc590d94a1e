"""An image takes its name all at once or never, and replaces nothing but images."""

from __future__ import annotations

import mmap
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from image_samples import MACHINE, PAGE_SIZE, Sample, read_everything, write_sample

from orchestrator.errors import ImageWriteFailed
from orchestrator.image.replacement import Replacement
from orchestrator.image.writer import ImageWriter

pytest_plugins = ["image_fixtures"]


def _writer(path: Path | str) -> ImageWriter:
    return ImageWriter(path, architecture=MACHINE, page_size=PAGE_SIZE)


class Interruption(Exception):
    pass


def _begin_and_fail(path: Path) -> None:
    with _writer(path) as writer:
        writer.begin(b"new", PAGE_SIZE)
        raise Interruption


def test_nothing_has_the_name_before_commit(target: Path) -> None:
    with _writer(target) as writer:
        writer.begin(b"metadata", PAGE_SIZE)
        assert not target.exists()
        writer.commit()
        assert target.exists()
    assert writer.fd == -1


@pytest.mark.parametrize("begun", [False, True])
def test_abort_leaves_nothing_and_may_be_repeated(target: Path, listed: Callable[[], list[str]], begun: bool) -> None:
    writer = _writer(target)
    if begun:
        writer.begin(b"metadata", PAGE_SIZE)
    fd = writer.fd
    writer.abort()
    writer.abort()
    assert listed() == []
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_an_exception_aborts(target: Path, listed: Callable[[], list[str]]) -> None:
    with pytest.raises(Interruption):
        _begin_and_fail(target)
    assert listed() == []


def test_leaving_without_commit_aborts(target: Path, listed: Callable[[], list[str]]) -> None:
    with _writer(target) as writer:
        writer.begin(b"metadata", 0)
    assert listed() == []


def test_abort_after_commit_keeps_the_image(sample: Sample, listed: Callable[[], list[str]]) -> None:
    with _writer(sample.path) as writer:
        writer.begin(b"new", 0)
        writer.commit()
        writer.abort()
    assert listed() == [sample.path.name]
    assert read_everything(sample.path) == (b"new", b"")


@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
def test_mode_is_0600_whatever_the_umask(target: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        write_sample(target)
    finally:
        os.umask(old)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_wide_open_old_image_gives_way_to_a_private_one(sample: Sample) -> None:
    sample.path.chmod(0o666)
    write_sample(sample.path)
    assert stat.S_IMODE(sample.path.stat().st_mode) == 0o600


def test_bytes_of_the_old_image_are_not_touched(sample: Sample, listed: Callable[[], list[str]]) -> None:
    old = sample.path.read_bytes()
    with open(sample.path, "rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ) as mapped:
        write_sample(sample.path, metadata=b"new", pages=b"")
        assert mapped[:] == old
    assert read_everything(sample.path) == (b"new", b"")
    assert listed() == [sample.path.name]


def test_failure_keeps_the_old_image(sample: Sample, listed: Callable[[], list[str]]) -> None:
    with pytest.raises(Interruption):
        _begin_and_fail(sample.path)
    assert listed() == [sample.path.name]
    assert read_everything(sample.path) == (sample.metadata, sample.pages)


def test_durable_means_file_before_name_before_directory(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, rename = os.fsync, os.rename

    def seen_fsync(fd: int) -> None:
        calls.append("fsync directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "fsync file")
        fsync(fd)

    def seen_rename(source: bytes, name: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        calls.append("rename")
        rename(source, name, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "rename", seen_rename)
    for durable, expected in ((True, ["fsync file", "rename", "fsync directory"]), (False, ["rename"])):
        calls.clear()
        with _writer(target) as writer:
            writer.begin(b"", 0)
            writer.commit(durable=durable)
        assert calls == expected


def test_the_directory_is_the_one_that_was_meant_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    with _writer("image") as writer:
        writer.begin(b"", 0)
        monkeypatch.chdir(tmp_path / "b")
        writer.commit()
    assert [os.listdir(tmp_path / name) for name in "ab"] == [["image"], []]


# What must not be replaced


def test_symbolic_link_as_target_is_refused_and_kept(target: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    target.symlink_to(victim)
    with pytest.raises(ImageWriteFailed, match="it is a symbolic link"):
        _writer(target)
    assert target.readlink() == victim
    assert victim.read_text() == "precious"


def test_dangling_symbolic_link_is_not_followed(target: Path, tmp_path: Path) -> None:
    target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ImageWriteFailed, match="it is a symbolic link"):
        _writer(target)
    assert not (tmp_path / "nowhere").exists()


def test_symbolic_link_planted_meanwhile_is_not_followed(target: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    with _writer(target) as writer:
        writer.begin(b"metadata", 0)
        target.symlink_to(victim)
        writer.commit()
    assert victim.read_text() == "precious"
    assert not target.is_symlink()


def test_directory_as_target(tmp_path: Path, listed: Callable[[], list[str]]) -> None:
    (tmp_path / "directory").mkdir()
    for name in (tmp_path / "directory", f"{tmp_path}/directory/", f"{tmp_path}/", f"{tmp_path}/directory/..", "."):
        with pytest.raises(ImageWriteFailed, match="Is a directory") as raised:
            _writer(name)
        assert str(name) in str(raised.value)
    assert listed() == ["directory"]


def test_directory_made_meanwhile(target: Path, listed: Callable[[], list[str]]) -> None:
    with _writer(target) as writer:
        writer.begin(b"metadata", 0)
        target.mkdir()
        with pytest.raises(ImageWriteFailed, match="Is a directory"):
            writer.commit()
        assert writer.fd == -1
    assert listed() == [target.name]


def test_fifo_as_target_is_kept(target: Path) -> None:
    os.mkfifo(target)
    with pytest.raises(ImageWriteFailed, match="is not a regular file"):
        _writer(target)
    assert target.is_fifo()


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(ImageWriteFailed, match="No such file or directory") as raised:
        _writer(tmp_path / "missing" / "image")
    assert raised.value.hint == f"create the directory {tmp_path}/missing first"
    assert not (tmp_path / "missing").exists()


def test_empty_name() -> None:
    with pytest.raises(ImageWriteFailed):
        _writer("")


def test_refusals_close_what_they_opened(target: Path, tmp_path: Path) -> None:
    target.symlink_to("x")
    before = os.listdir("/proc/self/fd")
    for path in (target, tmp_path, tmp_path / "missing" / "image"):
        with pytest.raises(ImageWriteFailed):
            _writer(path)
    assert os.listdir("/proc/self/fd") == before


# The unfinished file


def test_unfinished_file_has_no_name(target: Path, listed: Callable[[], list[str]]) -> None:
    with _writer(target) as writer:
        if os.fstat(writer.fd).st_nlink:
            pytest.skip("this file system has no O_TMPFILE")
        assert listed() == []


def test_killed_writer_leaves_nothing(target: Path, listed: Callable[[], list[str]]) -> None:
    program = (
        "import os, sys; from orchestrator.image.writer import ImageWriter\n"
        "writer = ImageWriter(sys.argv[1], architecture='x86_64', page_size=4096)\n"
        "writer.begin(b'metadata', 1 << 20)\n"
        "print(os.fstat(writer.fd).st_nlink, flush=True); sys.stdin.read()"
    )
    arguments = [sys.executable, "-c", program, str(target)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        links = process.stdout.readline()
        process.kill()
    assert process.returncode == -signal.SIGKILL
    if links != b"0\n":
        pytest.skip("this file system has no O_TMPFILE")
    assert listed() == []


def test_named_file_where_there_is_no_o_tmpfile(target: Path, listed: Callable[[], list[str]]) -> None:
    file = Replacement(str(target), anonymous=False)
    assert listed() == [f".job1.ckpt.{os.getpid()}.tmp"]
    assert stat.S_IMODE(os.fstat(file.fd).st_mode) == 0o600
    os.write(file.fd, b"content")
    file.publish(durable=True)
    assert listed() == ["job1.ckpt"]
    assert target.read_bytes() == b"content"


def test_discarded_named_file_is_removed(target: Path, listed: Callable[[], list[str]]) -> None:
    file = Replacement(str(target), anonymous=False)
    file.discard()
    file.discard()
    assert listed() == []


@pytest.mark.parametrize("anonymous", [True, False])
def test_leftovers_of_others_are_neither_used_nor_removed(
    target: Path, listed: Callable[[], list[str]], anonymous: bool
) -> None:
    left = target.with_name(f".job1.ckpt.{os.getpid()}.tmp")
    left.symlink_to("victim")
    file = Replacement(str(target), anonymous=anonymous)
    os.write(file.fd, b"content")
    file.publish(durable=False)
    assert listed() == [left.name, "job1.ckpt"]
    assert left.is_symlink()


@pytest.mark.parametrize("anonymous", [True, False])
def test_two_writers_of_one_name(target: Path, listed: Callable[[], list[str]], anonymous: bool) -> None:
    files = [Replacement(str(target), anonymous=anonymous) for _ in range(2)]
    for number, file in enumerate(files):
        os.write(file.fd, b"%d" % number)
    for file in files:
        file.publish(durable=False)
    assert listed() == ["job1.ckpt"]
    assert target.read_bytes() == b"1"


@pytest.mark.parametrize("anonymous", [True, False])
@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127])
def test_the_longest_name(tmp_path: Path, name: str, anonymous: bool) -> None:
    Replacement(str(tmp_path / name), anonymous=anonymous).publish(durable=False)
    assert os.listdir(tmp_path) == [name]


# Calls in the wrong order


def test_calls_in_the_wrong_order(target: Path) -> None:
    with _writer(target) as writer:
        with pytest.raises(RuntimeError):
            writer.commit()
        with pytest.raises(ValueError, match="no multiple of the page size"):
            writer.begin(b"", 1)
        writer.begin(b"", 0)
        with pytest.raises(RuntimeError):
            writer.begin(b"", 0)
        writer.commit()
        with pytest.raises(RuntimeError):
            writer.commit()


def test_too_much_metadata(target: Path) -> None:
    with _writer(target) as writer, pytest.raises(ImageWriteFailed, match="its metadata would take 268435457 bytes"):
        writer.begin(bytes((256 << 20) + 1), 0)
