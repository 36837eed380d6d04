"""Requeue, discard and cancel of very many jobs in a real directory: each ends where it belongs, the root is small."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from osqueue import Broker, Client
from tests.cli.command_line import document, succeed
from tests.e2e.root_size import RootSize

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DEAD = 50_000
DISCARDED = 10_000
WAITING = 100_000


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Path]:
    """A queue whose root is watched."""
    with RootSize(tmp_path / "jobs"):
        yield tmp_path / "jobs"


def bury(queue: Path, count: int) -> None:
    """Jobs whose holder leaves without a word; the one attempt that they are allowed is used up."""
    with Broker.open(queue, max_attempts=1) as broker:
        broker.push_many(b'{"n":%d}' % n for n in range(count))
        while broker.stats().ready:
            with Client.connect(queue) as client:
                client.claim_many(count)
        assert broker.stats().dead == count


def ids_of(queue: Path, state: str) -> list[int]:
    with Broker.open(queue) as broker:
        return [record.id for record in broker.list(state)]


def check(queue: Path, *, waiting: int = 0, dead: int = 0, finished: int = 0) -> None:
    found = document("verify", "jobs", cwd=queue.parent)
    assert found["problems"] == []
    assert {name: found[name] for name in ("waiting", "dead", "finished")} == {
        "waiting": waiting,
        "dead": dead,
        "finished": finished,
    }


def test_dead_jobs_are_discarded_and_requeued_through_a_broker(jobs: Path) -> None:
    bury(jobs, DEAD)
    discarded, requeued = [*range(1, DISCARDED + 1)], [*range(DISCARDED + 1, DEAD + 1)]
    with Broker.open(jobs) as broker:
        assert broker.discard(discarded) == discarded
        assert broker.requeue(requeued) == requeued
        assert (broker.stats().ready, broker.stats().dead) == (len(requeued), 0)

    check(jobs, waiting=len(requeued), finished=DISCARDED)
    with Broker.open(jobs) as broker:
        assert broker.stats().oldest_ready_s is not None, "though the jobs are not in memory yet"
        assert [(record.id, record.state) for record in broker.history()] == [(job_id, "dead") for job_id in discarded]
    assert ids_of(jobs, "ready") == requeued


def test_dead_jobs_are_discarded_and_requeued_on_the_command_line(jobs: Path) -> None:
    bury(jobs, DEAD)
    discarded, requeued = range(1, DISCARDED + 1), [*range(DISCARDED + 1, DEAD + 1)]

    assert succeed("discard", "jobs", *discarded, cwd=jobs.parent) == f"{DISCARDED} jobs discarded\n"
    assert ids_of(jobs, "dead") == requeued
    check(jobs, dead=len(requeued), finished=DISCARDED)
    assert succeed("requeue", "jobs", "--state", "dead", cwd=jobs.parent) == f"{len(requeued)} jobs requeued\n"

    check(jobs, waiting=len(requeued), finished=DISCARDED)
    status = document("status", "jobs", cwd=jobs.parent)
    assert (status["ready"], status["dead"], status["pushed"]) == (len(requeued), 0, DEAD)
    assert ids_of(jobs, "ready") == requeued


def test_every_second_waiting_job_is_cancelled(jobs: Path) -> None:
    singly = 500
    with Broker.open(jobs) as broker, Client.connect(jobs) as client:
        ids = client.push_many(b'{"n":%d}' % n for n in range(WAITING))
        cancelled, left = [*ids][::2], [*ids][1::2]
        assert all(client.cancel(job_id) for job_id in cancelled[:singly])
        assert client.cancel_many(cancelled) == cancelled[singly:], "what was final already is not among them"
        assert (broker.stats().ready, broker.stats().cancelled) == (len(left), len(cancelled))

    check(jobs, waiting=len(left), finished=len(cancelled))
    with Broker.open(jobs) as broker:
        assert sorted(record.id for record in broker.history() if record.state == "cancelled") == cancelled
    assert ids_of(jobs, "ready") == left


def test_very_many_jobs_are_cancelled_on_the_command_line(jobs: Path) -> None:
    with Broker.open(jobs) as broker:
        broker.push_many(b'{"n":%d}' % n for n in range(DISCARDED))

    output = succeed("cancel", "jobs", *range(2, DISCARDED + 1, 2), cwd=jobs.parent)

    assert output == f"{DISCARDED // 2} jobs cancelled\n"
    check(jobs, waiting=DISCARDED // 2, finished=DISCARDED // 2)
    assert ids_of(jobs, "ready") == [*range(1, DISCARDED + 1, 2)]
