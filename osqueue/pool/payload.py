"""What may enter through a pool: payloads of its tasks, of a size that a job can have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from osqueue.errors import PayloadTooLarge, UnknownTask
from osqueue.jobs import Handlers
from osqueue.settings import task_name


def payload_encoder(handlers: Handlers, task: object, *, limit_bytes: int) -> Callable[[Any], bytes]:
    """What encodes and checks this task's payloads; it raises InvalidPayload and PayloadTooLarge.

    Raises:
        UnknownTask: there is no handler for the task.
        TypeError, ValueError: it is no name of one.
    """
    if not isinstance(task, str) or task not in handlers.names:
        raise UnknownTask(f"the pool has no handler for this task task={task_name(task)!r}")
    encode = handlers.payloads(task).encode_checked

    def checked(payload: Any) -> bytes:
        data = encode(payload)
        if len(data) > limit_bytes:
            raise PayloadTooLarge(
                "payload is above max_payload: store it elsewhere and push a reference "
                f"bytes={len(data)} limit={limit_bytes}"
            )
        return data

    return checked
