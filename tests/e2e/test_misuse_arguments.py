"""Arguments that no broker could read are refused at once by the verb that got them, and nothing else suffers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from osqueue import Broker, Client, JobError, Queue, Rejected
from osqueue.client import Job
from osqueue.core.messages import Cancel, Changed, GetJob, Page
from tests.e2e.waiting import wait_for

LARGE = 2**63
SURROGATE = "\ud800"

Verb = Callable[[Client, Job[bytes]], Any]

WRONG_KIND: dict[str, Verb] = {
    "push payload": lambda queue, _: queue.push(3),  # type: ignore[arg-type]
    "push task": lambda queue, _: queue.push(b"1", task=3),  # type: ignore[arg-type]
    "push delay": lambda queue, _: queue.push(b"1", delay="3"),  # type: ignore[arg-type]
    "push priority": lambda queue, _: queue.push(b"1", priority=1.5),  # type: ignore[arg-type]
    "push timeout": lambda queue, _: queue.push(b"1", timeout=True),
    "push max_attempts": lambda queue, _: queue.push(b"1", max_attempts="3"),  # type: ignore[arg-type]
    "push_many payloads": lambda queue, _: queue.push_many(3),  # type: ignore[arg-type]
    "push_many payload": lambda queue, _: queue.push_many([b"1", "2"]),  # type: ignore[list-item]
    "claim worker": lambda queue, _: queue.claim(3),  # type: ignore[arg-type]
    "claim tasks": lambda queue, _: queue.claim(tasks=3),  # type: ignore[arg-type]
    "claim one task": lambda queue, _: queue.claim(tasks="default"),
    "claim task": lambda queue, _: queue.claim(tasks=[3]),  # type: ignore[list-item]
    "claim wait": lambda queue, _: queue.claim(wait="3"),  # type: ignore[arg-type]
    "claim_many jobs": lambda queue, _: queue.claim_many("3"),  # type: ignore[arg-type]
    "heartbeat": lambda queue, job: queue.heartbeat(job.id),  # type: ignore[arg-type]
    "heartbeat id": lambda queue, job: queue.heartbeat(structs.replace(job, id="1")),
    "heartbeating": lambda queue, job: queue.heartbeating(job.id),  # type: ignore[arg-type]
    "heartbeating interval": lambda queue, job: queue.heartbeating(job, "3"),  # type: ignore[arg-type]
    "complete": lambda queue, job: queue.complete(job.id),  # type: ignore[arg-type]
    "complete result": lambda queue, job: queue.complete(job, 3),  # type: ignore[arg-type]
    "complete attempt": lambda queue, job: queue.complete(structs.replace(job, attempt=1.5)),
    "fail": lambda queue, job: queue.fail(job.id),  # type: ignore[arg-type]
    "fail error": lambda queue, job: queue.fail(job, 3),  # type: ignore[arg-type]
    "fail error's field": lambda queue, job: queue.fail(job, JobError(3)),  # type: ignore[arg-type]
    "fail retry": lambda queue, job: queue.fail(job, "x", retry="no"),  # type: ignore[arg-type]
    "fail delay": lambda queue, job: queue.fail(job, "x", delay="3"),  # type: ignore[arg-type]
    "cancel": lambda queue, _: queue.cancel("1"),  # type: ignore[arg-type]
    "requeue": lambda queue, _: queue.requeue("12"),  # type: ignore[arg-type]
    "requeue one": lambda queue, _: queue.requeue(None),  # type: ignore[arg-type]
    "discard": lambda queue, _: queue.discard([1.5]),  # type: ignore[list-item]
    "get": lambda queue, _: queue.get("1"),  # type: ignore[arg-type]
    "history": lambda queue, _: [*queue.history("1")],  # type: ignore[arg-type]
    "prune": lambda queue, _: queue.prune("1d"),  # type: ignore[arg-type]
    "wait_idle tasks": lambda queue, _: queue.wait_idle(3),  # type: ignore[arg-type]
    "wait_idle one task": lambda queue, _: queue.wait_idle("default"),
    "wait_idle task": lambda queue, _: queue.wait_idle([3]),  # type: ignore[list-item]
    "wait_idle timeout": lambda queue, _: queue.wait_idle(timeout="3"),  # type: ignore[arg-type]
}
OUT_OF_BOUNDS: dict[str, Verb] = {
    "push task": lambda queue, _: queue.push(b"1", task=SURROGATE),
    "push priority": lambda queue, _: queue.push(b"1", priority=1001),
    "push delay": lambda queue, _: queue.push(b"1", delay=1e10),
    "push max_attempts": lambda queue, _: queue.push(b"1", max_attempts=LARGE),
    "claim tasks": lambda queue, _: queue.claim(tasks=[]),
    "claim_many jobs": lambda queue, _: queue.claim_many(LARGE),
    "heartbeat": lambda queue, job: queue.heartbeat(structs.replace(job, id=LARGE)),
    "complete": lambda queue, job: queue.complete(structs.replace(job, _lease=LARGE)),
    "fail error": lambda queue, job: queue.fail(job, JobError("x", rss_bytes=LARGE)),
    "cancel": lambda queue, _: queue.cancel(LARGE),
    "requeue": lambda queue, _: queue.requeue([LARGE]),
    "discard": lambda queue, _: queue.discard(-1),
    "get": lambda queue, _: queue.get(LARGE),
    "list": lambda queue, _: queue.list("lost"),  # type: ignore[arg-type]
    "history": lambda queue, _: [*queue.history(LARGE)],
    "prune": lambda queue, _: queue.prune(-1),
    "wait_idle": lambda queue, _: queue.wait_idle([]),
}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker.open(tmp_path / "queue") as broker:
        yield broker


@pytest.fixture
def job(broker: Broker) -> Job[bytes]:
    broker.push(b"1")
    job = broker.claim()
    assert job is not None
    return job


@pytest.mark.parametrize("name", WRONG_KIND)
def test_an_argument_of_the_wrong_kind_is_a_type_error(name: str, broker: Broker, job: Job[bytes]) -> None:
    with pytest.raises(TypeError):
        WRONG_KIND[name](broker, job)

    broker.complete(job)


@pytest.mark.parametrize("name", OUT_OF_BOUNDS)
def test_an_argument_out_of_bounds_is_a_value_error(name: str, broker: Broker, job: Job[bytes]) -> None:
    with pytest.raises(ValueError, match=r"."):
        OUT_OF_BOUNDS[name](broker, job)

    broker.complete(job)


def test_text_that_is_no_unicode_is_escaped_where_it_is_for_people(broker: Broker) -> None:
    broker.push(b"1")
    job = broker.claim(f"worker-{SURROGATE}")
    assert job is not None
    broker.fail(job, JobError("Kind", f"why {SURROGATE}"), retry=False)

    [error] = broker.get(job.id).errors
    assert error.message == r"why \ud800"


@pytest.mark.parametrize("where", [3, None, b"jobs", object()])
def test_a_place_that_is_none_is_a_type_error(where: Any) -> None:
    with pytest.raises(TypeError, match="where"):
        Broker.open(where)


def test_a_queue_checks_what_it_passes_on(broker: Broker, job: Job[bytes]) -> None:
    queue = Queue(broker, int)

    for call in (lambda: queue.complete(3), lambda: queue.fail(3), lambda: queue.claim(3), lambda: queue.heartbeat(3)):
        with pytest.raises(TypeError):
            call()  # type: ignore[no-untyped-call]

    queue.complete(job, 1)


def test_what_cannot_be_put_into_bytes_after_all_is_told_to_its_caller_alone(broker: Broker) -> None:
    """The last line of defence, below the verbs: a number above 64 bits in a message."""
    face = broker._face
    others: list[int] = []
    thread = threading.Thread(target=lambda: others.extend(broker.push(b"1") for _ in range(200)))
    thread.start()
    wait_for(lambda: others)
    with pytest.raises(Rejected, match="cannot be sent"):
        face.operate(Cancel([2**64]), Changed, lambda changed: changed)
    with pytest.raises(Rejected, match="cannot be sent"):
        face.ask(GetJob(2**64), Page, lambda page: page)
    thread.join(60)

    assert len(others) == 200
    assert broker.push(b"2") == 201
    assert broker.get(201).payload == b"2"
