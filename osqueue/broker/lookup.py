"""What connections ask of the archive, as the messages that answer them. Runs in a reading thread."""

from __future__ import annotations

from osqueue.broker.archive import Archive, Found
from osqueue.broker.effects import Lookup, Send
from osqueue.core.messages import Finished, GetJob, History, JobRecord, Missing, Page, Refused, Reply
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
            return [_reply(lookup, _record(lookup.query.id, archive.find(frame, [lookup.query.id])))]
        case History():
            return [_reply(lookup, _page(archive, frame, lookup.query, lookup.inline))]
        case ids:
            return _ends(lookup.connection, ids, archive.find(frame, ids))


def _reply(lookup: Lookup, body: Page | Refused) -> Send:
    return Send(lookup.connection, Reply(lookup.ticket, body))


def _record(job_id: int, found: Found) -> Page | Refused:
    if found.records:
        return Page(found.records)
    if found.damage is not None:
        return Refused("corrupt", str(found.damage))
    return Refused("job_not_found", f"the job has ended, and its record is no longer kept id={job_id}")


def _page(archive: Archive, frame: Frame, history: History, inline: list[JobRecord]) -> Page | Refused:
    try:
        records, cursor = archive.page(frame, history)
    except Corrupt as error:
        return Refused("corrupt", str(error))
    return Page(records if cursor else records + inline, cursor)


def _ends(connection: int, ids: list[int], found: Found) -> list[Send]:
    ended = [without_payload(record) for record in found.records]
    sends = [Send(connection, Finished(part)) for part in in_messages(ended)]
    if missing := sorted(set(ids).difference(record.id for record in ended)):
        sends.append(Send(connection, Missing(missing)))
    return sends
