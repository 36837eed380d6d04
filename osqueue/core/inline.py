"""Jobs that stand whole in the root."""

from __future__ import annotations

from osqueue.core.model import Job


class InlineJobs:
    """All inline jobs. Not thread-safe; owned by the backlog.

    Attributes:
        jobs: by id.
    """

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}
