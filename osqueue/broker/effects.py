"""What the commit loop has done by others. ``Leaving`` effects pass the gate; the others are the loop's own business.

The gate: what was made by a batch, or after it without a batch of its own, leaves when that batch has landed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from osqueue.core.commit import Commit
from osqueue.core.messages import FromBroker, GetJob, History, JobRecord, Prune
from osqueue.errors import Corrupt


class Create(NamedTuple):
    """Make a commit's objects; then call `CommitLoop.created`."""

    commit: Commit


class Swap(NamedTuple):
    """Replace the root; then call `CommitLoop.landed`."""

    commit: Commit


class Load(NamedTuple):
    """Read objects; then call `CommitLoop.loaded` or `CommitLoop.not_loaded` for each."""

    keys: list[str]


class Delete(NamedTuple):
    """Delete objects that nobody needs, and some that could not be before; then call `CommitLoop.deleted`, and for
    those that still cannot be deleted `CommitLoop.not_deleted`.
    """

    keys: list[str]


class CloseConnection(NamedTuple):
    """Another connection serves the session now, or this one does not keep the rules."""

    connection: int


class Send(NamedTuple):
    """A message to a connection."""

    connection: int
    message: FromBroker


class Lookup(NamedTuple):
    """Read the archive for a connection: the answer to a query (with a ticket), or the ends of watched jobs."""

    connection: int
    ticket: int
    query: GetJob | History | Prune | list[int]
    inline: Sequence[JobRecord] = ()
    """For a history: the finished jobs that no object held when it was asked."""
    damage: Mapping[int, Corrupt] = {}
    """Those of the jobs that may yet wait or run if the archive does not know them, and why nobody can say."""


class Forget(NamedTuple):
    """Remove a blame file: what it says is in the root now."""

    blame_path: str


Leaving = Send | Lookup | Forget | Delete
Effect = Create | Swap | Load | CloseConnection | Leaving
