"""A worker that the kernel's out-of-memory killer ends: in a memory cgroup in which it is alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from osqueue import LocalPool, WorkerCrashed
from tests.e2e import handlers
from tests.e2e import misused_handlers as misused
from tests.e2e.aftermath import Place
from tests.e2e.waiting import wait_for

pytestmark = pytest.mark.usefixtures("nothing_is_left")

CGROUPS = Path("/sys/fs/cgroup")
LIMIT_BYTES = 96 * 1024 * 1024


class Group:
    """A memory cgroup of version 1 or 2."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def limit(self) -> None:
        """Bound its memory, swap included.

        Raises:
            OSError: the kernel does not let us.
        """
        if (self.path / "memory.max").exists():
            (self.path / "memory.max").write_text(str(LIMIT_BYTES))
            swap = self.path / "memory.swap.max"
            bound = "0"
        else:
            (self.path / "memory.limit_in_bytes").write_text(str(LIMIT_BYTES))
            swap = self.path / "memory.memsw.limit_in_bytes"
            bound = str(LIMIT_BYTES)
        if swap.exists():  # a kernel without swap accounting has no such file
            swap.write_text(bound)

    def kills(self) -> int:
        """How many processes the kernel has killed in it."""
        for name in ("memory.events", "memory.oom_control"):
            if (self.path / name).exists():
                counts = dict(line.split() for line in (self.path / name).read_text().splitlines())
                return int(counts.get("oom_kill", -1))
        return -1

    def remove(self) -> None:
        wait_for(lambda: not (self.path / "cgroup.procs").read_text())
        self.path.rmdir()


@pytest.fixture
def group() -> Iterator[Group]:
    one = CGROUPS / "memory"
    parent = one if one.is_dir() else CGROUPS
    try:
        made = Group(parent / f"osqueue-test-{os.getpid()}")
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")
    try:
        try:
            made.limit()
        except OSError as error:
            pytest.skip(f"no memory cgroup can be bounded here: {error}")
        if not any((made.path / name).exists() for name in ("memory.max", "memory.limit_in_bytes")):
            pytest.skip("no memory controller here")
        yield made
    finally:
        made.remove()


def test_a_worker_killed_by_the_kernel_for_its_memory_costs_its_own_job_one_attempt_and_nobody_else(
    place: Place, group: Group
) -> None:
    tasks = {"default": handlers.double, "outgrow": misused.outgrow_its_group}
    with LocalPool(tasks, path=place.path, workers=3, max_attempts=2, retry_backoff=0.01) as pool:
        wait_for(lambda: pool.stats().workers == 3)
        before = pool.push_many(range(300))
        outgrowing = pool.submit(str(group.path), task="outgrow", max_attempts=1)
        after = pool.push_many(range(300))

        with pytest.raises(WorkerCrashed, match=r"SIGKILL.*out-of-memory killer") as caught:
            outgrowing.result(90)
        wait_for(lambda: pool.stats().workers == 3)
        pool.join(60)
        record = pool.get(outgrowing.job_id or 0)
        others = [pool.get(job_id) for job_id in (*before, *after)]

        assert group.kills() in (1, -1)
        assert caught.value.attempts == 1
        assert (record.state, record.attempts) == ("dead", 1)
        assert (record.errors[0].error_type, record.errors[0].signal) == ("WorkerCrashed", "SIGKILL")
        assert {(other.state, other.attempts) for other in others} == {("succeeded", 1)}
        assert pool.submit(4).result(60) == 8

    place.is_intact(succeeded=601)


def test_a_job_that_outgrows_its_memory_each_time_is_dead_after_its_attempts_while_others_succeed(
    place: Place, group: Group
) -> None:
    tasks = {"default": handlers.double, "outgrow": misused.outgrow_its_group}
    with LocalPool(tasks, path=place.path, workers=2, max_attempts=3, retry_backoff=0.01) as pool:
        outgrowing = pool.submit(str(group.path), task="outgrow")
        futures = [pool.submit(number) for number in range(200)]

        with pytest.raises(WorkerCrashed):
            outgrowing.result(90)

        assert [future.result(60) for future in futures] == list(range(0, 400, 2))
        record = pool.get(outgrowing.job_id or 0)
        assert [(error.attempt, error.signal) for error in record.errors] == [
            (1, "SIGKILL"),
            (2, "SIGKILL"),
            (3, "SIGKILL"),
        ]
        assert all(pool.get(future.job_id or 0).attempts == 1 for future in futures)

    place.is_intact(succeeded=200)
