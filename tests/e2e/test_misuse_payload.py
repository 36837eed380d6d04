"""Payloads that cannot be pushed, and raw ones that are no clean JSON."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from osqueue import Broker, InvalidPayload, LocalPool, PayloadTooLarge, Rejected, UnknownTask
from tests.e2e import handlers
from tests.e2e.aftermath import Place

pytestmark = pytest.mark.usefixtures("nothing_is_left")

MIB = 1024 * 1024
CYCLE: list[Any] = []
CYCLE.append(CYCLE)


def push_many(pool: LocalPool[Any, Any], payload: Any, **options: Any) -> object:
    return pool.push_many([payload], **options)


@pytest.mark.parametrize("push", [LocalPool.push, LocalPool.submit, push_many], ids=["push", "submit", "push_many"])
def test_what_cannot_be_pushed_is_refused_by_name_with_the_way_out_and_nothing_is_pushed(
    place: Place, push: Callable[..., object]
) -> None:
    tasks = {"default": handlers.anything, "typed": handlers.swap}
    with LocalPool(tasks, path=place.path, workers=1) as pool:
        pushed = pool.stats().pushed

        for payload, task, error, way_out in [
            (object(), "default", InvalidPayload, "use JSON values, or a msgspec Struct"),
            ({"a": {1, object()}}, "default", InvalidPayload, "use JSON values, or a msgspec Struct"),
            (CYCLE, "default", InvalidPayload, "nested too deeply, or contains itself"),
            (float("nan"), "default", InvalidPayload, "holds nan, which JSON cannot say: send None or text"),
            ("\ud800", "default", InvalidPayload, "lone surrogate, which is no text: decode it properly first"),
            ("x" * 5 * MIB, "default", PayloadTooLarge, "store it elsewhere and push a reference"),
            ({"x": "one", "y": 2}, "typed", InvalidPayload, "not of the declared type Point"),
            (7, "typed", InvalidPayload, "not of the declared type Point"),
            (1, "unheard-of", UnknownTask, "unheard-of"),
        ]:
            with pytest.raises(error, match=re.escape(way_out)):
                push(pool, payload, task=task)

        assert pool.stats().pushed == pushed
        assert pool.submit({"x": 1, "y": 2}, task="typed").result(30) == handlers.Point(2, 1)

    place.is_intact(succeeded=1)


def test_a_payload_type_stated_by_the_pool_is_checked_at_the_push(place: Place) -> None:
    with LocalPool(handlers.anything, path=place.path, workers=1, payload_type=dict[str, int]) as pool:
        with pytest.raises(InvalidPayload, match=r"declared type .*Expected `int`, got `str`"):
            pool.push({"a": "b"})

        assert pool.submit({"a": 1}).result(30) == {"a": 1}

    place.is_intact(succeeded=1)


def test_a_map_over_a_bad_payload_gives_what_came_before_it_and_the_error_in_its_turn(place: Place) -> None:
    with LocalPool(handlers.anything, path=place.path, workers=1) as pool:
        results = pool.map([1, object(), 3])

        assert next(results) == 1
        with pytest.raises(InvalidPayload, match="cannot be encoded"):
            next(results)

    place.is_intact(succeeded=1)


UNCLEAN = {
    "a job of its own": b'1},{"id":9',
    "NaN": b"NaN",
    "lone surrogate": b'"\\ud800"',
    "half a character": b'"\xed\xa0\x80"',
    "nested": b"[" * 50_000 + b"]" * 50_000,
    "two lines": b'{"a":\n1}',
    "end of a record": b'"}]}\n{"id":1}',
    "nothing": b"",
    "zeros": bytes(64),
    "spaces": b"  1  ",
}


def test_raw_payloads_that_are_no_clean_json_come_back_byte_for_byte_from_get_and_claim_and_after_a_restart(
    place: Place,
) -> None:
    with Broker.open(place.path) as broker:
        ids = [broker.push(payload) for payload in UNCLEAN.values()]
        assert [broker.get(job_id).payload for job_id in ids] == list(UNCLEAN.values())

    with Broker.open(place.path) as broker:
        assert [broker.get(job_id).payload for job_id in ids] == list(UNCLEAN.values())
        jobs = broker.claim_many(len(ids))
        assert [(job.id, job.payload) for job in jobs] == list(zip(ids, UNCLEAN.values(), strict=True))
        for job in jobs:
            broker.complete(job, result=job.payload)
        records = [broker.get(job_id) for job_id in ids]
        assert [(record.payload, record.result) for record in records] == [(p, p) for p in UNCLEAN.values()]

    with Broker.open(place.path) as broker:
        records = [broker.get(job_id) for job_id in ids]
        assert [(record.payload, record.result) for record in records] == [(p, p) for p in UNCLEAN.values()]
        assert broker.stats().pushed == len(ids) + len(place.ids)
    place.is_intact(succeeded=len(ids))


def test_many_unclean_payloads_come_back_from_segments(place: Place) -> None:
    unclean = [payload for payload in UNCLEAN.values() if not payload.startswith(b"[")]
    payloads = [b"%b %d" % (payload, number) for number in range(2000) for payload in unclean]
    with Broker.open(place.path) as broker:
        ids = broker.push_many(payloads)
    assert len(list((place.path / "segments").iterdir())) > 0

    with Broker.open(place.path) as broker:
        assert broker.get(ids[777]).payload == payloads[777]
        claimed: dict[int, bytes] = {}
        while len(claimed) < len(ids):
            jobs = broker.claim_many(5000, wait=30)
            assert jobs
            claimed.update((job.id, job.payload) for job in jobs)

    assert claimed == dict(zip(ids, payloads, strict=True))


def test_a_claim_that_does_not_wait_finds_jobs_in_a_queue_that_was_just_opened(place: Place) -> None:
    with Broker.open(place.path) as broker:
        ids = broker.push_many(b"%d" % number for number in range(20_000))

    with Broker.open(place.path) as broker:
        job = broker.claim()

    assert job is not None
    assert job.id == ids[0]


def test_raw_payloads_that_no_handler_can_read_are_dead_at_once_and_say_so(place: Place) -> None:
    with Broker.open(place.path) as broker:
        ids = [broker.push(payload) for name, payload in UNCLEAN.items() if name not in ("spaces", "two lines")]

    with LocalPool(handlers.anything, path=place.path, workers=2) as pool:
        pool.join(60)
        records = [pool.get(job_id) for job_id in ids]

    assert {(record.state, record.attempts) for record in records} == {("dead", 1)}
    assert {record.errors[0].error_type for record in records} == {"InvalidPayload"}
    assert all("payload is" in record.errors[0].message for record in records)
    place.is_intact()


def test_a_raw_payload_of_5_mib_or_of_the_wrong_type_is_refused_and_the_broker_goes_on(place: Place) -> None:
    with Broker.open(place.path) as broker:
        with pytest.raises(PayloadTooLarge, match="max_payload"):
            broker.push(b"1" * 5 * MIB)
        with pytest.raises(TypeError, match="bytes"):
            broker.push("1")  # type: ignore[arg-type]
        with pytest.raises(Rejected) as refused:
            broker.push_many([b"1", b"2" * 5 * MIB])
        assert refused.value.pushed == 1
        assert broker.stats().pushed == len(place.ids) + 1
        job = broker.claim()
        assert job is not None
        broker.complete(job)

    place.is_intact(succeeded=1)
