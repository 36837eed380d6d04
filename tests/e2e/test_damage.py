"""A segment or a record that nobody can read: its jobs are named, whoever waits for them is told, the rest goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from osqueue import Broker, Corrupt, LocalPool
from osqueue.cli import exit_status
from tests.cli.command_line import osqueue
from tests.e2e import handlers
from tests.e2e.test_pool_broker import kill_broker
from tests.e2e.waiting import wait_for

JOBS = 3_000
"""So many that they stand in a segment."""


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A queue whose first jobs are in a segment that lacks its end, with one more job in the root itself."""
    path = tmp_path / "jobs"
    with Broker.open(path) as broker:
        broker.push_many([b"1"] * JOBS)
        broker.push(b"2", task="other")
    for segment in path.glob("segments/*.jsonl"):
        segment.write_bytes(segment.read_bytes()[:-5])
    return path


def test_join_and_leaving_the_block_name_the_damage_instead_of_waiting_for_ever(damaged: Path) -> None:
    with Broker.open(damaged) as broker:
        broker.push(b"1", task="later", delay=3600)
    pool = LocalPool({"default": handlers.double, "other": handlers.double}, workers=1, path=damaged)
    assert pool.submit(5).result(60) == 10
    with pytest.raises(Corrupt, match="osqueue verify"):
        pool.join(60)
    with pytest.raises(Corrupt, match=rf"jobs={JOBS} keys=segments/"):
        pool.shutdown()

    with Broker.open(damaged) as broker:
        stats = broker.stats()
        with pytest.raises(Corrupt, match="osqueue verify"):
            broker.cancel(5)
        with pytest.raises(Corrupt, match=r"id=5$") as caught:
            broker.get(5)
        with pytest.raises(Corrupt, match="segments/"):
            list(broker.list("ready"))
        assert list(broker.dead()) == []
        with pytest.raises(TimeoutError, match=r"after 0\.1 s"):
            broker.wait_idle(["later"], timeout=0.1)
    assert (stats.succeeded, stats.ready) == (2, JOBS)
    assert str(caught.value.key).startswith("segments/")


def test_everything_runs_once_the_file_has_been_put_back(tmp_path: Path) -> None:
    path = tmp_path / "jobs"
    with Broker.open(path) as broker:
        broker.push_many([b"1"] * JOBS)
    whole = {segment: segment.read_bytes() for segment in path.glob("segments/*.jsonl")}
    for segment in whole:
        segment.unlink()
    with pytest.raises(Corrupt), LocalPool(handlers.double, workers=1, path=path):
        pass
    for segment, data in whole.items():
        segment.write_bytes(data)

    with LocalPool(handlers.double, workers=1, path=path) as pool:
        assert pool.join(60).succeeded == JOBS


def test_the_command_ends_as_one_that_met_damage(damaged: Path) -> None:
    done = osqueue("run", "tests.e2e.handlers:double", "--path", str(damaged), "-j", "1", cwd=Path.cwd())

    assert done.returncode == exit_status.STORE_FAILED
    assert "osqueue verify" in done.stderr
    assert "Traceback" not in done.stderr


def test_futures_of_jobs_in_a_segment_that_was_damaged_meanwhile_say_so(tmp_path: Path) -> None:
    path = tmp_path / "jobs"
    started, go = tmp_path / "started", tmp_path / "go"
    pool = LocalPool(handlers.wait_for_file, workers=1, path=path)
    futures = [pool.submit({"started": str(started), "go": str(go)}) for _ in range(JOBS)]
    wait_for(started.exists)
    wait_for(lambda: futures[-1].job_id is not None)
    segments = list(path.glob("segments/*.jsonl"))
    for segment in segments:
        segment.write_bytes(b"")
    kill_broker(pool)

    with pytest.raises(Corrupt, match=r"damaged or missing.*key=segments/.*id=1$") as caught:
        futures[0].result(60)
    assert caught.value.key in {f"segments/{segment.name}" for segment in segments}
    go.touch()
    assert pool.submit({"started": str(started), "go": str(go)}).result(60) == "went"
    with pytest.raises(Corrupt, match="osqueue verify"):
        pool.shutdown()
    assert segments


@pytest.mark.parametrize("jobs", [JOBS, 50], ids=["in segments", "in the root"])
@pytest.mark.parametrize("brokers", [1, 3])
def test_an_old_root_put_back_alone_is_refused_and_nothing_is_deleted(jobs: int, brokers: int, tmp_path: Path) -> None:
    path = tmp_path / "jobs"
    with Broker.open(path) as broker:
        broker.push_many([b"1"] * jobs)
    root = path / "queue.json"
    old = root.read_bytes()
    with LocalPool(handlers.double, workers=1, path=path) as pool:
        pool.join(60)
    for _ in range(brokers - 1):
        Broker.open(path).close()
    new = root.read_bytes()
    root.write_bytes(old)

    for _ in range(2):
        with pytest.raises(Corrupt, match=r"older than objects beside it.*osqueue verify"):
            Broker.open(path)
        assert osqueue("status", str(path), cwd=tmp_path).returncode != 0
    assert root.read_bytes() == old

    root.write_bytes(new)
    with Broker.open(path) as broker:
        assert broker.stats().succeeded == jobs
        assert len(list(broker.history())) == jobs
