"""On Windows everything that would open a queue or start workers says where it works instead."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.program import environment

AS_ON_WINDOWS = """
import os, signal, sys
# What others do when they see the platform is not what is tested.
import argparse, asyncio, filelock, logging, msgspec, multiprocessing.connection, multiprocessing.forkserver
import multiprocessing.process, multiprocessing.spawn, pathlib, select, selectors, shutil, socket, subprocess, tempfile
sys.platform = "win32"
sys.modules["fcntl"] = None
del os.sysconf, signal.SIGBUS
import osqueue.cli
from osqueue import Broker, LocalPool
"""


@pytest.mark.parametrize(
    "call",
    ["Broker.open('queue')", "LocalPool(len, path='queue')", "LocalPool(len)", "LocalPool('os.path:basename')"],
)
def test_it_is_refused_by_name(call: str, tmp_path: Path) -> None:
    program = f"{AS_ON_WINDOWS}\ntry:\n    {call}\nexcept Exception as error:\n    print(error)\n"

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )

    assert done.stdout == "osqueue needs Linux or macOS; on Windows run the program inside WSL\n", done.stderr
    assert [*tmp_path.iterdir()] == []


def test_so_is_a_command(tmp_path: Path) -> None:
    program = f"{AS_ON_WINDOWS}\nsys.exit(osqueue.cli.main(['push', 'jobs', '1']))"

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert "WSL" in done.stderr
