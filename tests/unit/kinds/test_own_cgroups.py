"""The cgroups of a job."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import NoSuchJob
from orchestrator.kinds.task.own_cgroups import OwnCgroups


def test_a_job_that_has_just_ended_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(NoSuchJob, match="gone"):
        OwnCgroups(str(tmp_path / "ended"), "/ended", "")
