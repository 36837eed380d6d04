"""The one number line of objects, and the one rule that decides which of them are real.

Every object takes its number from one counter in the root that is never set back, and its key names number and epoch.

    An object is real only if its epoch owned its number: it is below the first number of the next takeover or, in the
    current epoch, below the root's counter.

What is older than the takeover log is real: a takeover leaves the log only after a sweep has run to its end.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

from osqueue.core.model import Frame, Takeover

TAKEOVERS = 256
TAKEOVERS_BYTES = 12 * 1024
"""So much of the root's first 14 KiB may the takeover log take: long owners' names make it shorter."""
_DIGITS = 12
_SEGMENT = re.compile(r"^segments/(\d+)-(\d+)\.jsonl$")
_ARCHIVE = re.compile(r"^archive/(\d{4}-\d\d-\d\dT\d\d)/(\d+)-(\d+)\.(\d+)-(\d+)\.([0-9a-f]+)\.jsonl$")


class ObjectName(NamedTuple):
    """What an object's key says of it; the last three for archive objects alone."""

    number: int
    epoch: int
    hour: str = ""
    first_id: int = 0
    last_id: int = 0
    digest: str = ""


def segment_key(number: int, epoch: int) -> str:
    return f"segments/{number:0{_DIGITS}d}-{epoch:06d}.jsonl"


def archive_key(name: ObjectName) -> str:
    numbers = f"{name.number:0{_DIGITS}d}-{name.epoch:06d}.{name.first_id}-{name.last_id}"
    return f"archive/{name.hour}/{numbers}.{name.digest}.jsonl"


def parse(key: str) -> ObjectName | None:
    """Read a key; None if it is no object's."""
    if found := _SEGMENT.match(key):
        return ObjectName(int(found[1]), int(found[2]))
    if found := _ARCHIVE.match(key):
        return ObjectName(int(found[2]), int(found[3]), found[1], int(found[4]), int(found[5]), found[6])
    return None


def is_real(name: ObjectName, frame: Frame) -> bool:
    """Whether the object's epoch owned its number."""
    if name.epoch == frame.epoch:
        own = frame.takeovers[-1] if frame.takeovers else None
        return name.number < frame.next_object and (own is None or name.number >= own.first_number)
    if name.epoch > frame.epoch:
        return False
    log = frame.takeovers
    if not log or name.epoch < log[0].epoch:
        return True
    for at, takeover in enumerate(log):
        if takeover.epoch == name.epoch:
            return takeover.first_number <= name.number < log[at + 1].first_number
    return False


def is_sweepable(name: ObjectName, frame: Frame) -> bool:
    """Whether a sweep may delete the object: of a lower epoch, and not real."""
    return name.epoch < frame.epoch and not is_real(name, frame)


def log_of_takeovers(frame: Frame, owner: str) -> list[Takeover]:
    """The log with the frame's epoch at its end; as it is too long, the oldest leave it that a sweep has followed."""
    log = [*frame.takeovers, Takeover(frame.epoch, frame.version + 1, frame.next_object, owner)]
    while _is_long(log) and log[0].epoch < frame.swept:
        log.pop(0)
    return log


def _is_long(log: list[Takeover]) -> bool:
    return len(log) > TAKEOVERS or len(msgspec.json.encode(log)) > TAKEOVERS_BYTES
