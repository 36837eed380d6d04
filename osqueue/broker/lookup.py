"""What connections ask of the archive, as the messages that answer them. Runs in a reading thread."""

from __future__ import annotations

from collections.abc import Sequence

from osqueue.broker.archive import Archive, Found, ended_since
from osqueue.broker.effects import Lookup, Send
from osqueue.core.messages import (
    Finished,
    GetJob,
    History,
    JobRecord,
    Missing,
    Page,
    Prune,
    Refused,
    Reply,
    refused_as_corrupt,
)
from osqueue.core.model import Frame
from osqueue.core.watchers import in_messages, without_payload
from osqueue.errors import Corrupt


def look_up(archive: Archive, frame: Frame, lookup: Lookup) -> list[Send]:
    """Read what a look-up asks for.

    Args:
        archive: where.
        frame: the root's, as it stands in the store when the look-up leaves the gate.
        lookup: what is asked, and by whom.

    Raises:
        ReadFailed: it cannot be read now.
    """
    match lookup.query:
        case GetJob():
            return [_reply(lookup, _record(lookup, lookup.query.id, archive.find(frame, [lookup.query.id])))]
        case History():
            return [_reply(lookup, _page(archive, frame, lookup.query, lookup.inline))]
        case Prune():
            raise AssertionError("what is pruned is committed first")
        case ids:
            return _ends(lookup, ids, archive.find(frame, ids))


def _reply(lookup: Lookup, body: Page | Refused) -> Send:
    return Send(lookup.connection, Reply(lookup.ticket, body))


def _record(lookup: Lookup, job_id: int, found: Found) -> Page | Refused:
    if found.records:
        return Page(found.records)
    damage = lookup.damage.get(job_id) or found.damage
    if damage is None:
        return Refused("job_not_found", f"the job has ended, and its record is no longer kept id={job_id}")
    why = refused_as_corrupt(damage)
    return Refused(why.code, f"{why.message} id={job_id}", why.key)


def _page(archive: Archive, frame: Frame, history: History, inline: Sequence[JobRecord]) -> Page | Refused:
    try:
        found, cursor = archive.page(frame, history)
    except Corrupt as error:
        return refused_as_corrupt(error)
    damage = None if found.damage is None else refused_as_corrupt(found.damage)
    last = [] if cursor else ended_since(inline, history.since_ms)
    return Page([*found.records, *last], cursor, damage)


def _ends(lookup: Lookup, ids: list[int], found: Found) -> list[Send]:
    ended = [without_payload(record) for record in found.records]
    sends = [Send(lookup.connection, Finished(part)) for part in in_messages(ended)]
    elsewhere = found.damage or Corrupt("the job's record is missing; see `osqueue verify`")
    missing: dict[Corrupt, list[int]] = {}
    for job_id in sorted(set(ids).difference(record.id for record in ended)):
        missing.setdefault(lookup.damage.get(job_id, elsewhere), []).append(job_id)
    sends.extend(Send(lookup.connection, Missing(part, refused_as_corrupt(why))) for why, part in missing.items())
    return sends
