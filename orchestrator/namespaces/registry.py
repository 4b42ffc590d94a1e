"""All kinds of namespaces, in the order in which they are captured and rebuilt."""

from __future__ import annotations

from orchestrator.namespaces import cgroup, ipc, mount, net, pid, time, user, uts
from orchestrator.namespaces.kind import Namespace, NamespaceKind

NAMESPACE_KINDS: dict[str, NamespaceKind] = {
    kind.name: kind for kind in (user.KIND, cgroup.KIND, mount.KIND, pid.KIND, time.KIND, uts.KIND, ipc.KIND, net.KIND)
}
"""By name in /proc/PID/ns. Mounts come before what is written through /proc."""

NamespaceBody = (
    user.UserNamespace
    | cgroup.CgroupNamespace
    | mount.MountNamespace
    | pid.PidNamespace
    | time.TimeNamespace
    | uts.UtsNamespace
    | ipc.IpcNamespace
    | net.NetNamespace
)
"""What Namespace.body of a private namespace is decoded as; told apart by tag."""


class AnyNamespace(Namespace, frozen=True):
    """A namespace of an image, with its body typed."""

    body: NamespaceBody | None = None
