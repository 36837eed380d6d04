"""The order of system calls of a commit, as the kernel saw them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

STRACE = shutil.which("strace")
TRACED = "openat write fsync fdatasync close rename renameat renameat2 link linkat unlink unlinkat newfstatat mkdirat"
COMMITS = """
import os, sys
from contextlib import closing
from osqueue.storage import ROOT_KEY, open_directory
with closing(open_directory(sys.argv[1])) as storage:
    version = storage.compare_and_swap(ROOT_KEY, b"first root", None)
    storage.create("segments/0.json", b"first segment")
    os.write(1, b"swapping")
    storage.compare_and_swap(ROOT_KEY, b"second root", version)
    os.write(1, b"creating")
    storage.create("segments/1.json", b"second segment")
    os.write(1, b"done")
"""


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What strace saw of `COMMITS`."""
    if STRACE is None:
        pytest.skip("strace is not installed")
    place = tmp_path_factory.mktemp("trace")
    traced = ",".join("?" + call for call in TRACED.split())  # "?": unless this processor has no such call
    command = [STRACE, "-qq", "-y", "-e", f"trace={traced}", "-o", str(place / "trace")]
    done = subprocess.run(
        [*command, sys.executable, "-c", COMMITS, str(place / "queue")], capture_output=True, text=True, check=False
    )
    if done.returncode != 0 and "ptrace" in done.stderr.lower():
        pytest.skip(f"strace may not trace here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return (place / "trace").read_text().replace(str(place / "queue"), "QUEUE")


def calls_between(trace: str, first: str, last: str) -> list[str]:
    """The calls after one word was said and before the next, on one line each, without numbers that differ by run."""
    inside = trace.partition(f'"{first}"')[2].partition(f'"{last}"')[0]
    calls = re.sub(r"\.tmp-[0-9a-f]{16}", "TEMPORARY", inside)
    calls = re.sub(r"\b\d+<", "<", calls)
    calls = re.sub(r"\{.*?\}", "STATUS", calls)
    lines = [line.rsplit(" = ", 1)[0].rstrip() for line in calls.splitlines()[1:-1]]
    return [line for line in lines if "AT_EMPTY_PATH" not in line]  # fstat, as some libraries call it


def test_a_swap_is_write_sync_close_look_twice_rename_and_sync_of_the_directory(trace: str) -> None:
    assert calls_between(trace, "swapping", "creating") == [
        'openat(<QUEUE>, "TEMPORARY", O_WRONLY|O_CREAT|O_EXCL|O_NOFOLLOW|O_CLOEXEC, 0600)',
        'write(<QUEUE/TEMPORARY>, "second root", 11)',
        "fsync(<QUEUE/TEMPORARY>)",
        "close(<QUEUE/TEMPORARY>)",
        'newfstatat(<QUEUE>, "queue.lock", STATUS, AT_SYMLINK_NOFOLLOW)',
        'newfstatat(<QUEUE>, "queue.json", STATUS, AT_SYMLINK_NOFOLLOW)',
        'renameat(<QUEUE>, "TEMPORARY", <QUEUE>, "queue.json")',
        "fsync(<QUEUE>)",
    ]


def test_a_creation_is_write_sync_close_link_and_sync_of_the_directory(trace: str) -> None:
    assert calls_between(trace, "creating", "done") == [
        'openat(<QUEUE>, "segments", O_RDONLY|O_NOFOLLOW|O_CLOEXEC|O_DIRECTORY)',
        'openat(<QUEUE/segments>, "TEMPORARY", O_WRONLY|O_CREAT|O_EXCL|O_NOFOLLOW|O_CLOEXEC, 0600)',
        'write(<QUEUE/segments/TEMPORARY>, "second segment", 14)',
        "fsync(<QUEUE/segments/TEMPORARY>)",
        "close(<QUEUE/segments/TEMPORARY>)",
        'linkat(<QUEUE/segments>, "TEMPORARY", <QUEUE/segments>, "1.json", 0)',
        'unlinkat(<QUEUE/segments>, "TEMPORARY", 0)',
        "fsync(<QUEUE/segments>)",
        "close(<QUEUE/segments>)",
    ]
