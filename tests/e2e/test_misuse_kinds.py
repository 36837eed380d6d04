"""Every argument of every public call, given what it cannot be: refused by its name, nothing pushed, and on it goes."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from osqueue import Broker, Client, LocalPool, Queue
from osqueue.client import Job
from tests.e2e import handlers

NOTHING = object()
"""What no argument can be but a payload, for which a pool has an error of its own (`InvalidPayload`)."""
HUGE = 10**30
NUMBERS = {"buffersize", "delay", "grace", "ids", "interval", "job_id", "jobs", "max_attempts", "n", "older_than"}
NUMBERS |= {"priority", "since_ms", "timeout", "wait"}
FLAGS = {"cancel_futures", "ordered", "retry", "return_exceptions"}

Case = tuple[str, str]


def arguments_of(kind: type, *, besides: set[str] = frozenset()) -> list[Case]:  # type: ignore[assignment]
    """Every argument of every public method, properties and class methods left out."""
    methods = {name: member for name, member in vars(kind).items() if not name.startswith("_")}
    return [
        (name, argument)
        for name, method in methods.items()
        if inspect.isfunction(method)
        for argument in inspect.signature(method).parameters
        if argument not in {"self", "excess", *besides}
    ]


def required(method: str, job: object = None) -> dict[str, Any]:
    """Arguments with which a method can be called."""
    return {
        "push": {"payload": 1},
        "push_many": {"payloads": [1]},
        "submit": {"payload": 1},
        "map": {"payloads": [1]},
        "claim_many": {"jobs": 1},
        **{verb: {"job": job} for verb in ("heartbeat", "heartbeating", "complete", "fail")},
        "prune": {"older_than": 0},
    }.get(method, {})


def wrong_values(argument: str, method: str) -> Iterator[tuple[Any, type[Exception]]]:
    yield NOTHING, ValueError if argument == "state" else TypeError
    if argument in FLAGS or (method, argument) == ("shutdown", "wait"):
        yield "no", TypeError
        yield 1, TypeError
    elif argument in NUMBERS:
        yield True, TypeError
        yield "3", TypeError
        yield math.nan, (TypeError, ValueError)  # type: ignore[misc]
        yield HUGE, ValueError
        yield -HUGE, ValueError


def is_refused(call: Callable[..., Any], method: str, argument: str, usual: dict[str, Any]) -> None:
    for value, error in wrong_values(argument, method):
        with pytest.raises(error, match=rf"\b{argument}\b"):
            # What is lazy says so at the latest when it is iterated over.
            list(call(**usual | {argument: value}) or ())


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPool[Any, Any]]:
    with LocalPool(handlers.anything, workers=1, path=tmp_path_factory.mktemp("queue")) as pool:
        yield pool


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker.open(tmp_path_factory.mktemp("queue")) as broker:
        yield broker


@pytest.fixture(scope="module")
def job(broker: Broker) -> Job[bytes]:
    broker.push(b"1")
    job = broker.claim()
    assert job is not None
    return job


@pytest.mark.parametrize(("method", "argument"), arguments_of(LocalPool, besides={"payload"}))
def test_of_a_pools_methods(pool: LocalPool[Any, Any], method: str, argument: str) -> None:
    before = pool.join().pushed

    is_refused(getattr(pool, method), method, argument, required(method))

    assert pool.stats().pushed == before
    assert pool.submit(7).result(30) == 7


@pytest.mark.parametrize(("method", "argument"), arguments_of(Client))
def test_of_the_verbs(broker: Broker, job: Job[bytes], method: str, argument: str) -> None:
    before = broker.stats()

    is_refused(getattr(broker, method), method, argument, required(method, job) | bytes_for(method))

    after = broker.stats()
    assert (after.pushed, after.running) == (before.pushed, before.running)
    broker.heartbeat(job)


@pytest.mark.parametrize(("method", "argument"), arguments_of(Queue, besides={"result"}))
def test_of_a_queues_verbs(broker: Broker, job: Job[bytes], method: str, argument: str) -> None:
    before = broker.stats()

    # A value of another type than the queue's is `InvalidPayload`, see test_verbs.
    if (method, argument) != ("push", "payload"):
        is_refused(getattr(Queue(broker, int), method), method, argument, required(method, job))

    after = broker.stats()
    assert (after.pushed, after.running) == (before.pushed, before.running)
    broker.heartbeat(job)


@pytest.mark.parametrize("argument", [name for name in inspect.signature(LocalPool).parameters if name != "handler"])
def test_of_making_a_pool(tmp_path: Path, argument: str) -> None:
    usual = {"path": tmp_path / "queue", "workers": 1}
    if argument == "initargs":
        usual["initializer"] = handlers.anything

    with pytest.raises(TypeError, match=rf"\b{argument}\b"):
        LocalPool(handlers.double, **usual | {argument: NOTHING})

    assert not (tmp_path / "queue").exists()


@pytest.mark.parametrize("argument", inspect.signature(Broker.open).parameters)
def test_of_opening_a_queue(tmp_path: Path, argument: str) -> None:
    with pytest.raises(TypeError, match=rf"\b{argument}\b"):
        Broker.open(**{"where": tmp_path / "queue"} | {argument: NOTHING})  # type: ignore[arg-type]

    assert not (tmp_path / "queue").exists()


def test_of_connecting() -> None:
    with pytest.raises(TypeError, match="directory"):
        Client.connect(NOTHING)  # type: ignore[arg-type]


@pytest.mark.parametrize("argument", inspect.signature(Queue).parameters)
def test_of_a_queue(broker: Broker, argument: str) -> None:
    with pytest.raises(TypeError, match=rf"\b{argument}\b"):
        Queue(**{"queue": broker, "payload_type": int} | {argument: NOTHING})  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["unheard-of", "fork"])
def test_a_start_method_that_is_none_is_refused_by_name(method: str) -> None:
    with pytest.raises(ValueError, match="mp_context"):
        LocalPool(handlers.double, mp_context=method)


@pytest.mark.parametrize("handler", [NOTHING, None, 3, "no colon", b"a:b", {}, [handlers.double], {1: handlers.double}])
def test_of_a_handler(tmp_path: Path, handler: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="handler"):
        LocalPool(handler, path=tmp_path / "queue")

    assert not (tmp_path / "queue").exists()


def bytes_for(method: str) -> dict[str, Any]:
    return {"push": {"payload": b"1"}, "push_many": {"payloads": [b"1"]}}.get(method, {})
