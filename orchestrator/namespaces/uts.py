"""UTS namespaces: the names of the machine. See uts_namespaces(7)."""

from __future__ import annotations

import os

from orchestrator.ids import HostPid
from orchestrator.kinds.record import Record
from orchestrator.kinds.scope import Scope
from orchestrator.linux.nsfs import CLONE_NEWUTS
from orchestrator.linux.procfs import read_record
from orchestrator.namespaces.enter import enter
from orchestrator.namespaces.kind import NamespaceKind
from orchestrator.tape.build import Tape


class UtsNamespace(Record, frozen=True, tag="uts"):
    """The two names that can be set."""

    hostname: bytes
    domainname: bytes


def read_names() -> UtsNamespace:
    """Read the names of our own UTS namespace."""
    # procfs, as os.uname() has no domain name; this file shows the reader's namespace.
    domain = read_record("/proc/sys/kernel/domainname").removesuffix(b"\n")
    return UtsNamespace(os.fsencode(os.uname().nodename), domain)


def _capture(pid: HostPid, scope: Scope) -> UtsNamespace:  # noqa: ARG001
    return enter(pid, ["uts"], read_names)


def _rebuild(record: UtsNamespace, tape: Tape) -> None:
    tape.sethostname(record.hostname, len(record.hostname))
    tape.setdomainname(record.domainname, len(record.domainname))


KIND = NamespaceKind("uts", CLONE_NEWUTS, UtsNamespace, _capture, _rebuild)
