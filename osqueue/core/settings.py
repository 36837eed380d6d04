"""What whoever opens a queue states about it; plain data, checked by `osqueue.settings` at the edge."""

from __future__ import annotations

from msgspec import Struct

KIB = 1024
MIB = 1024 * KIB


class QueueSettings(Struct, frozen=True, kw_only=True):
    """The queue's own settings, in the words of `LocalPool`'s arguments."""

    max_attempts: int = 4
    retry_backoff_s: float = 1.0
    retry_backoff_max_s: float = 600.0
    retry_jitter: bool = True
    lease_s: float = 30.0
    max_queued: int | None = None
    """How many jobs may wait, ready or delayed; None for as many as there is room for."""
    max_payload_bytes: int = 4 * MIB - 64 * KIB
