"""Files that cannot be rebuilt, each with its reason; the last of all kinds, so that none passes unnamed."""

from __future__ import annotations

from orchestrator.kinds.files.kind import FdView
from orchestrator.kinds.scope import Scope

_ANONYMOUS = {
    "[io_uring]": "the ring has no descriptor any more",
    "[userfaultfd]": "its registrations cannot be saved",
    "[perf_event]": "performance counters cannot be saved",
    "bpf-map": "memory of a BPF map does not show of which map it is",
    "bpf-prog": "BPF objects cannot be saved",
    "bpf_link": "BPF objects cannot be saved",
    "kvm": "virtual machines cannot be saved",
    "seccomp notify": "a supervisor of system calls cannot be saved",
    "[fscontext]": "a mount in the making cannot be saved",
    "landlock-ruleset": "a Landlock ruleset cannot be read back",
}
_LINKS = {
    "socket": "sockets of this family cannot be saved",
}


_INTERNAL = {
    "/[aio]": "a context of asynchronous I/O (io_setup) cannot be saved",
    "/secretmem": "secret memory cannot be read",
}


def is_internal(view: FdView) -> bool:
    """Whether a file that looks like one with a name never had one."""
    return view.link.removesuffix(" (deleted)") in _INTERNAL


def refuse(view: FdView, scope: Scope) -> None:
    """Note why a file that no kind recognises cannot be rebuilt."""
    kind, _, rest = view.link.partition(":")
    if kind == "anon_inode":
        name = "kvm" if rest.startswith("kvm-") else rest  # virtual machines, processors by number, devices of theirs
        reason = _ANONYMOUS.get(name, "this kind of file cannot be saved")
    else:
        reason = _LINKS.get(kind, "this kind of file cannot be saved")
        reason = _INTERNAL.get(view.link.removesuffix(" (deleted)"), reason)
    scope.unsupported(view.pid, view.what, reason)
