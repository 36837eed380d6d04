"""Makes a golden queue: ``python -m tests.format.make_golden DIRECTORY``.

Run once for each format number, and never again for one that has been published: what stands in ``golden/`` is what
such a version wrote, as a broker leaves it that is killed in the middle of its work.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from osqueue import Broker
from osqueue.core.codec import digest
from osqueue.core.messages import JobRecord
from osqueue.storage import MARKER_KEY, ROOT_KEY

EXPECTED = "expected.jsonl"
"""Beside the queue's own objects: every job as a reader must see it, one a line."""


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        queue = Path(temporary, "queue")
        with Broker.open(queue) as broker:
            fill(broker)
        with Broker.open(queue, max_attempts=2) as broker:
            work(broker)
            records = [*broker.list(), *broker.history()]
            copy_objects(queue, target)
    lines = [json.dumps(summary(record)) for record in sorted(records, key=lambda record: record.id)]
    (target / EXPECTED).write_text("\n".join(lines) + "\n")


def summary(record: JobRecord) -> dict[str, Any]:
    """A record as one line; of its payload only what tells it from another."""
    return {**msgspec.json.decode(msgspec.json.encode(record)), "payload": digest(record.payload)}


def fill(broker: Broker) -> None:
    """Finished jobs enough for an archive object of their own, and waiting ones enough for a segment."""
    broker.push_many(b'{"name":"early","text":"%b"}' % (b"-" * 900) for _ in range(30))
    for _ in range(30):
        if (job := broker.claim("worker-1")) is not None:
            broker.complete(job, result=b'{"length":900}')
    broker.push_many(b'{"name":"waiting","text":"%b"}' % (b"-" * 900) for _ in range(40))


def work(broker: Broker) -> None:
    """One of each: every state, every kind of payload, every place where a job can stand."""
    broker.push(b"\xff no JSON", task="binary", priority=-3)
    broker.push(b'"later"', delay=1e9, timeout=60, max_attempts=7)
    broker.push(b'"first"', priority=1000)
    broker.push(b'"once"', key="order-7", delay=1e9)
    for number in range(100):
        broker.push(b'"once"', key=f"order-{100 + number}", priority=-1000, delay=2e9)
    first, second, third, fourth = (broker.claim(f"worker-{number}") for number in range(4))
    assert first is not None
    assert second is not None
    assert third is not None
    assert fourth is not None
    broker.complete(first, result=b"\xff no JSON either")
    broker.fail(second, "not today", retry=True, delay=1e9)
    broker.fail(third, "never", retry=False)
    broker.cancel(55)
    broker.push(b'"dead twice"', task="twice", max_attempts=1)
    for _ in range(2):
        job = broker.claim(tasks=("twice",))
        assert job is not None
        broker.fail(job, "no")
        broker.requeue(job.id)
    broker.push(b'"discarded"', task="gone", max_attempts=1)
    gone = broker.claim(tasks=("gone",))
    assert gone is not None
    broker.fail(gone, "no")
    broker.discard(gone.id)
    broker.push_many((b'{"name":"spilled","text":"%b"}' % (b"-" * 900) for _ in range(20)), task="spilled")
    for number in range(20):
        spilled = broker.claim(tasks=("spilled",))
        assert spilled is not None
        broker.fail(spilled, "no " * 20, retry=number % 2 == 0, delay=1e9)


def copy_objects(queue: Path, target: Path) -> None:
    """What a reader of the format needs: the root and what belongs to it, without lock and socket."""
    shutil.copytree(queue, target, ignore=lambda directory, names: {"queue.lock", "broker.sock", "blame"} & set(names))
    assert {ROOT_KEY, MARKER_KEY, "segments", "archive"} <= {path.name for path in target.iterdir()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
