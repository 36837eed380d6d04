"""What must hold after a misuse or a fault: the queue is as it was, and nothing of it runs any more."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from osqueue import Broker, LocalPool
from osqueue.storage import open_directory
from tests.e2e import handlers
from tests.e2e.waiting import wait_for

EARLIER = "earlier"
"""The task of the jobs that stand in a queue before it is misused; nobody has a handler for it meanwhile."""
_LASTING = (b"multiprocessing.forkserver", b"multiprocessing.resource_tracker")


class Place:
    """A queue directory in which jobs wait that were pushed before anything went wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with Broker.open(path) as broker:
            self.ids: Sequence[int] = broker.push_many([b"1", b"2", b"3"], task=EARLIER)

    def files(self) -> dict[str, bytes]:
        """Every file of it, but for the note in the lock, which says who last opened it."""
        files = (path for path in self.path.rglob("*") if path.is_file() and path.name != "queue.lock")
        return {str(path.relative_to(self.path)): path.read_bytes() for path in files}

    def is_intact(self, *, succeeded: int = 0) -> None:
        """Nobody holds its lock, nothing in it is damaged, and the earlier jobs are there and run, uncharged till then.

        Args:
            succeeded: how many other jobs have succeeded.
        """
        open_directory(self.path, wait_s=0).close()
        with LocalPool({EARLIER: handlers.double}, path=self.path, workers=1) as pool:
            stats = pool.join(60)
            records = [pool.get(job_id) for job_id in self.ids]
        assert [(record.state, record.result, record.attempts) for record in records] == [
            ("succeeded", b"2", 1),
            ("succeeded", b"4", 1),
            ("succeeded", b"6", 1),
        ]
        assert stats.succeeded == len(records) + succeeded


def descendants(root: int) -> Iterator[tuple[int, int]]:
    """Pid and parent's pid of every process below one, zombies left out."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state not in "ZX":
            children.setdefault(int(parent), []).append(int(stat.parent.name))
    waiting = [root]
    while waiting:
        parent_pid = waiting.pop()
        for pid in children.get(parent_pid, []):
            yield pid, parent_pid
            waiting.append(pid)


def pool_processes() -> set[int]:
    """Brokers, workers and their children below this process; its fork server and resource tracker last."""
    return {pid for pid, parent in descendants(os.getpid()) if parent != os.getpid() or not _lasts(pid)}


def _lasts(pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True
    return any(name in command for name in _LASTING)


def runs(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until_gone(pids: set[int], seconds: float = 10) -> None:
    """Wait until none of these processes runs."""
    wait_for(lambda: not any(map(runs, pids)), seconds)
