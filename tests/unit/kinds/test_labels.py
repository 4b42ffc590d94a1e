"""Labels of security modules, which this machine may not have."""

from __future__ import annotations

import os

import pytest

from orchestrator.ids import HostPid, Pid
from orchestrator.kinds.scope import Scope
from orchestrator.kinds.task import labels

PID = HostPid(1)


def scope(*externals: str) -> Scope:
    return Scope({PID: Pid(1)}, {PID: "test"}, externals=frozenset(externals))


@pytest.fixture(autouse=True)
def _ask_again() -> None:
    labels.own_label.cache_clear()


def given(monkeypatch: pytest.MonkeyPatch, found: dict[str, bytes | OSError]) -> None:
    def read(path: str) -> bytes:
        content = found[path.split("/")[2]]
        if isinstance(content, OSError):
            raise content
        return content

    monkeypatch.setattr(labels, "read_file", read)


@pytest.mark.parametrize("label", [b"unconfined\n", b"system_u:system_r:init_t:s0\0"])
def test_a_label_like_our_own_is_fine(monkeypatch: pytest.MonkeyPatch, label: bytes) -> None:
    given(monkeypatch, {"self": label, "1": label})
    where = scope()
    labels.note_label(where, PID, PID)
    where.blockers.raise_if_any()


def test_another_label_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, {"self": b"unconfined\n", "1": b"docker-default (enforce)\n"})
    where, allowed = scope(), scope("label")
    labels.note_label(where, PID, PID)
    labels.note_label(allowed, PID, PID)
    assert "docker-default (enforce)" in str(where.blockers.unsupported)
    allowed.blockers.raise_if_any()


def test_a_machine_without_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, {"self": OSError(22, os.strerror(22))})
    where = scope()
    labels.note_label(where, PID, PID)
    where.blockers.raise_if_any()
