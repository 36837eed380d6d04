"""What a pool was asked to be, checked."""

from __future__ import annotations

from multiprocessing.context import BaseContext

from msgspec import Struct

from osqueue.core.settings import QueueSettings
from osqueue.jobs import Handlers
from osqueue.lifecycle import Lifecycle
from osqueue.pool.directory import PoolDirectory
from osqueue.settings import PoolSettings


class PoolPlan(Struct, frozen=True, kw_only=True):
    """What an engine is made from."""

    handlers: Handlers
    directory: PoolDirectory
    queue: QueueSettings
    pool: PoolSettings
    lifecycle: Lifecycle = Lifecycle()
    retry_on: tuple[str, ...]
    no_retry_on: tuple[str, ...]
    codec: str | None = None
    knows_other_tasks: bool = False
    mp_context: str | BaseContext | None
