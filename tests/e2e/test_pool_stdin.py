"""Programs without a file of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.program import environment

SCRIPT = """
from osqueue import LocalPool
with LocalPool("math:sqrt", workers=1, mp_context={method!r}) as pool:
    print(pool.submit(9).result())
"""


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
@pytest.mark.parametrize("arguments", [["-"], []], ids=["a dash", "no argument"])
def test_a_script_on_standard_input_uses_handlers_of_other_modules(
    method: str, arguments: list[str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, *arguments],
        input=SCRIPT.format(method=method),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "3.0\n", "")
