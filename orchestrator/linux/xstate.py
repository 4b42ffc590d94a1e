"""The size of the extended registers that this processor and kernel give a thread. See cpuid, leaf 0xD."""

from __future__ import annotations

import os
from functools import cache

from orchestrator.linux import ptrace


@cache
def own_xstate_bytes() -> int:
    """Return the size in bytes of the NT_X86_XSTATE regset, asked of a short-lived child."""
    # A child that ends by itself may be gone before it is seized.
    child = os.posix_spawn("/bin/sleep", ["sleep", "60"], {}, setsigmask=[])
    try:
        ptrace.seize(child)
        ptrace.interrupt(child)
        if not ptrace.wait_for(child).is_stop:
            return 0
        return len(ptrace.get_regset(child, ptrace.NT_X86_XSTATE))
    finally:
        os.kill(child, 9)
        os.waitpid(child, ptrace.WALL)
