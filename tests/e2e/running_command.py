"""Commands that go on until they are ended, as somebody at a terminal would have them run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.e2e.program import Ended, environment, processes_of
from tests.e2e.waiting import wait_for

ENDED_S = 60


class RunningCommand:
    """``osqueue …`` in a directory, in its own process group; killed at the end of its ``with`` block."""

    def __init__(self, directory: Path, *arguments: object) -> None:
        number = len(list(directory.glob("*.out")))
        self._out = (directory / f"{number}.out").open("w+")
        self._err = (directory / f"{number}.err").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "osqueue", *map(str, arguments)],
            cwd=directory,
            env={**environment(), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            process_group=0,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
        self._out.close()
        self._err.close()

    @property
    def pid(self) -> int:
        return self.process.pid

    def out(self) -> str:
        """What it has printed so far."""
        return Path(self._out.name).read_text()

    def err(self) -> str:
        """What it has said on standard error so far."""
        return Path(self._err.name).read_text()

    def wait_until_it_says(self, text: str) -> None:
        wait_for(lambda: text in self.out() or self.process.poll() is not None, ENDED_S)
        assert text in self.out(), (self.process.poll(), self.out(), self.err())

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the command alone."""
        os.kill(self.pid, number)

    def ended(self) -> Ended:
        """Wait for its end."""
        status = self.process.wait(ENDED_S)
        return Ended(status, self.out(), self.err())


def nothing_runs_in(directory: Path) -> None:
    """Wait until no process is left there, and fail if one stays."""
    wait_for(lambda: processes_of(directory) == [], 20)
