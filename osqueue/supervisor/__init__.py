"""One host's supervisor: it claims jobs for its worker processes, watches them, and reports what became of the jobs.

loop.py       Supervisor: processes and timers on an event loop, does what the foreman decides
foreman.py    Foreman: every decision, without I/O
"""

from osqueue.supervisor.link import Link
from osqueue.supervisor.loop import Supervisor
from osqueue.supervisor.settings import SupervisorSettings

__all__ = ["Link", "Supervisor", "SupervisorSettings"]
