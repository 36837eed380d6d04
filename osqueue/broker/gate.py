"""The one gate through which everything leaves: answers, refusals, reads, hand-outs, notices, look-ups, deletes.

What was made by a batch, or after it without a batch of its own, leaves when that batch has landed.
"""

from __future__ import annotations

from typing import NamedTuple

from osqueue.core.commit import Commit
from osqueue.core.messages import FromBroker, GetJob, History, JobRecord
from osqueue.core.model import Frame


class Send(NamedTuple):
    """A message to a connection."""

    connection: int
    message: FromBroker


class Lookup(NamedTuple):
    """Read the archive for a connection: the answer to a query (with a ticket), or the ends of watched jobs."""

    connection: int
    ticket: int
    query: GetJob | History | list[int]
    inline: list[JobRecord]
    """For a history: the finished jobs that no object held when it was asked."""


class Forget(NamedTuple):
    """Remove a blame file: what it says is in the root now."""

    blame_path: str


Leaving = Send | Lookup | Forget


class Batch:
    """What one commit holds back until it has landed."""

    def __init__(self, commit: Commit, leaving: list[Leaving], frame: Frame) -> None:
        self.commit = commit
        self.leaving = leaving
        self.frame = frame
        self.created = not commit.objects
