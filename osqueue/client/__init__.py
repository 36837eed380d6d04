"""One method per operation, over any connection to a broker.

Client (blocking, any thread) ─▶ Connection (the loop's thread) ─▶ Session (sans-I/O) ─▶ frames
"""

from __future__ import annotations

from osqueue.client.client import Client
from osqueue.client.job import Job

__all__ = ["Client", "Job"]
