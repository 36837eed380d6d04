"""Runs the command line as users do: ``python -m osqueue …`` in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[2]
DEADLINE_S = 90


def environment() -> dict[str, str]:
    """Finds osqueue in this checkout, wherever the command runs."""
    return {**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONUNBUFFERED": "1"}


def arguments_for(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "osqueue", *map(str, arguments)]


def osqueue(*arguments: object, cwd: Path, stdin: str | bytes = b"") -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    done = subprocess.run(
        arguments_for(*arguments),
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        cwd=cwd,
        env=environment(),
        timeout=DEADLINE_S,
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def succeed(*arguments: object, cwd: Path, stdin: str | bytes = b"") -> str:
    """Run one command that must end with status 0 and say nothing on standard error; its output."""
    done = osqueue(*arguments, cwd=cwd, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def document(*arguments: object, cwd: Path) -> Any:
    """The one JSON document that a command prints."""
    return json.loads(succeed(*arguments, "--json", cwd=cwd))


def documents(*arguments: object, cwd: Path) -> list[Any]:
    """The JSON objects that a command prints, one a line."""
    return [json.loads(line) for line in succeed(*arguments, "--json", cwd=cwd).splitlines()]
