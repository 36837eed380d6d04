"""Delayed jobs on a real pool that is stopped, killed and started again meanwhile: none early, none much too late."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.program import REPOSITORY, environment
from tests.e2e.running_command import nothing_runs_in

LATE_S = 10
"""On a machine that others use too; `scripts/bench/delayed.py` by itself bears half a second."""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_delayed_jobs_begin_when_they_are_due_though_the_program_is_stopped_and_killed(tmp_path: Path) -> None:
    script = REPOSITORY / "scripts" / "bench" / "delayed.py"
    arguments = ["--jobs", "4000", "--within", "20", "--late", str(LATE_S), "--dir", str(tmp_path)]

    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"early 0, in peace later than {LATE_S}.0 s 0" in done.stdout
    nothing_runs_in(tmp_path)
