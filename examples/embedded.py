"""A queue inside one process: push, claim, heartbeat, complete, without a pool.

Run ``python examples/embedded.py [DIRECTORY]``.
"""

from __future__ import annotations

import sys
import tempfile

from msgspec import Struct

from osqueue import Broker, Queue


class Task(Struct):
    name: str
    size: int = 1


def main(directory: str) -> None:
    with Broker.open(directory) as broker:
        queue = Queue(broker, Task)
        for name in ("build-index", "send-report", "fail-once"):
            print(f"pushed {queue.push(Task(name=name))}: {name}")
        while job := queue.claim("worker-1"):
            queue.heartbeat(job)  # for long work: extends the lease by one term
            if job.payload.name == "fail-once":
                queue.fail(job, "as its name says", retry=False)
            else:
                queue.complete(job, result={"done": job.payload.name})
            print(f"job {job.id}, attempt {job.attempt}: {broker.get(job.id).state}")
        print(f"{broker.stats().succeeded} succeeded, {broker.stats().dead} dead")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(temporary)
