"""The one gate through which everything leaves: answers, refusals, reads, hand-outs, notices, look-ups, deletes.

What was made by a batch, or after it without a batch of its own, leaves when that batch has landed.
"""

from __future__ import annotations

from typing import NamedTuple

from osqueue.core.commit import Commit
from osqueue.core.machine import without_payload
from osqueue.core.messages import Finished, FromBroker, GetJob, History, JobRecord, Page, Refused, Reply
from osqueue.core.model import Frame
from osqueue.core.state import in_messages


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


def archive_answer(lookup: Lookup, records: list[JobRecord], cursor: str = "") -> list[Send]:
    """What a look-up in the archive has found, as the messages to send.

    Args:
        lookup: what was asked.
        records: what objects had.
        cursor: where the next page begins; empty after the last object.
    """
    if isinstance(lookup.query, list):
        ended = [without_payload(record) for record in records]
        return [Send(lookup.connection, Finished(part)) for part in in_messages(ended)]
    if isinstance(lookup.query, History):
        body: Page | Refused = Page(records if cursor else records + lookup.inline, cursor)
    elif records:
        body = Page(records)
    else:
        why = "the job has ended, and its record is no longer kept"
        body = Refused("job_not_found", f"{why} id={lookup.query.id}")
    return [Send(lookup.connection, Reply(lookup.ticket, body))]
