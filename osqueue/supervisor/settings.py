"""What a supervisor is told; plain data, checked at the edge by whoever makes it."""

from __future__ import annotations

from multiprocessing.context import BaseContext
from typing import Any

from msgspec import Struct

from osqueue.core.settings import QueueSettings
from osqueue.lifecycle import Lifecycle


class SupervisorSettings(Struct, frozen=True, kw_only=True):
    """Settings of one supervisor.

    ``handlers``: task to ``module:name`` (`Handlers.names`). ``blame_path``: where to make the blame file; must not
    exist. ``retry_on``, ``no_retry_on``: names of exception classes (`osqueue.jobs.class_name`). ``codec``: name of
    what takes the place of JSON (`osqueue.codec.codec_name`).
    """

    handlers: dict[str, str]
    blame_path: str
    workers: int
    timeout_s: float | None = None
    soft_timeout_s: float | None = None
    max_tasks_per_child: int | None = None
    max_memory_per_child_bytes: int | None = None
    lifecycle: Lifecycle = Lifecycle()
    grace_s: float = 10.0
    max_payload_bytes: int = QueueSettings().max_payload_bytes
    retry_on: tuple[str, ...] = ("builtins:Exception",)
    no_retry_on: tuple[str, ...] = ()
    payload_type: Any = None
    result_type: Any = None
    codec: str | None = None
    knows_other_tasks: bool = False
    mp_context: str | BaseContext | None = None
