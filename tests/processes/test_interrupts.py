"""Ctrl-C goes to the whole foreground process group, also while workers start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SCRIPT = """
import asyncio, pathlib, signal, sys, time
sys.path[:0] = {path!r}
if __name__ != "__main__":
    print("importing", flush=True)
    time.sleep(1)  # long enough for the signal to find this process here
from tests.processes import handlers
from tests.processes.yard import Yard

async def main():
    async with Yard(handlers.echo, pathlib.Path({directory!r}), workers=1, mp_context={method!r}) as yard:
        print(await yard.run("alive"), flush=True)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, lambda *_: None)
    asyncio.run(main())
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_an_early_ctrl_c_does_not_kill_workers_that_are_still_importing(tmp_path, method):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(path=[str(ROOT)], directory=str(tmp_path), method=method))
    program = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "importing\n"

    os.killpg(program.pid, signal.SIGINT)
    said, complained = program.communicate(timeout=100)

    assert said == "['alive']\n"  # and no second "importing": the first worker was not started again
    assert "KeyboardInterrupt" not in complained
