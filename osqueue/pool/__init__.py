"""The pool: a broker, a supervisor with its workers, and a client, in one `with` block.

local_pool.py   LocalPool: what the user calls        ending.py   how a pool is left
engine.py       its parts, their start and stop       link.py     between supervisor and broker
submitter.py    jobs with futures, on their way       broker_process.py, broker_child.py   its broker, restarted
"""

from __future__ import annotations

from osqueue.pool.local_pool import LocalPool

__all__ = ["LocalPool"]
