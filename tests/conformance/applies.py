"""Which tests make sense here, decided as the suite does for the flavour of the host."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field

from conformance.checkout import Checkout, Test

SECONDS = 60
FLAVOURS = {"ns": "namespaces", "uns": "a user namespace"}


@dataclass(slots=True)
class Applicability:
    """Answers for one checkout; what a feature needs is asked once."""

    checkout: Checkout
    _features: dict[str, bool] = field(default_factory=dict)

    def why_not(self, test: Test) -> str | None:
        """Say why a test does not apply, or None."""
        description = test.description
        here = os.uname().machine
        if description.architecture not in (None, here):
            return f"for {description.architecture} only"
        if "noauto" in description.flags:
            return "run by hand only, says the suite"
        for feature in description.features:
            if not self._has(feature):
                return f"the machine or CRIU's build lacks {feature}"
        if test.check is not None and not self._succeeds(test):
            return "its own check says that it does not apply to this machine"
        if "h" not in description.flavours:
            inside = " or ".join(FLAVOURS[flavour] for flavour in sorted(description.flavours & set(FLAVOURS)))
            return f"runs in {inside} of its own only"
        return None

    def _has(self, feature: str) -> bool:
        if feature not in self._features:
            criu = self.checkout.criu
            # Without a built CRIU nobody can tell; the test itself will.
            self._features[feature] = criu is None or (
                subprocess.run(
                    [str(criu), "check", "--no-default-config", "-v0", "--feature", feature],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=SECONDS,
                    check=False,
                ).returncode
                == 0
            )
        return self._features[feature]

    def _succeeds(self, test: Test) -> bool:
        done = subprocess.run(
            [str(test.check)],
            cwd=self.checkout.suite.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
            check=False,
        )
        return done.returncode == 0
