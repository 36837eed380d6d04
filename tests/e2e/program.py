"""Programs that use a pool, run as a user would run them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

from tests.e2e.waiting import wait_for

REPOSITORY = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    """An environment in which programs find the package that is under test."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


class Ended(NamedTuple):
    status: int
    out: str
    err: str


class Program:
    """A script in a directory of its own, in its own process group, as a terminal would run it."""

    def __init__(self, directory: Path, source: str) -> None:
        self.directory = directory
        script = directory / "program.py"
        script.write_text(textwrap.dedent(source))
        self._out = (directory / "out").open("w+")
        self._err = (directory / "err").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-W", "ignore:This process:DeprecationWarning", str(script)],
            cwd=directory,
            env={**environment(), "TMPDIR": str(directory)},
            stdout=self._out,
            stderr=self._err,
            process_group=0,
        )

    def interrupt(self) -> None:
        """Ctrl-C: every process of the foreground group gets SIGINT."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait_for(self, name: str) -> None:
        """Wait until the program has made a file."""
        wait_for(lambda: (self.directory / name).exists() or self.process.poll() is not None)
        assert (self.directory / name).exists(), self.end()

    def end(self, seconds: float = 60) -> Ended:
        """Wait for its end; kill it if that does not come in time."""
        try:
            status = self.process.wait(seconds)
        finally:
            self.process.kill()
        texts = []
        for file in (self._out, self._err):
            file.seek(0)
            texts.append(file.read())
            file.close()
        return Ended(status, *texts)


def processes_of(directory: Path) -> list[int]:
    """Processes that still run there, zombies left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            cwd = (entry / "cwd").readlink()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if cwd.is_relative_to(directory) and state not in "ZX":
            found.append(int(entry.name))
    return found


def broker_of(directory: Path) -> int:
    """The process of a broker that a pool or `osqueue work` has started there."""
    [pid] = [pid for pid in processes_of(directory) if b"osqueue.serve" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return pid
