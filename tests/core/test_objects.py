"""The one rule that decides which objects are real."""

from __future__ import annotations

import pytest

from osqueue.core.model import Frame, Takeover
from osqueue.core.objects import ObjectName, archive_key, is_real, is_sweepable, parse, segment_key

LOG = [Takeover(4, 10, 20, "a"), Takeover(5, 30, 50, "b"), Takeover(6, 40, 70, "c")]
FRAME = Frame(epoch=6, next_object=80, takeovers=LOG)


@pytest.mark.parametrize(
    ("number", "epoch", "real"),
    [
        (20, 4, True),
        (49, 4, True),
        (50, 4, False),  # its epoch had ended at number 50
        (19, 4, False),
        (50, 5, True),
        (70, 5, False),
        (70, 6, True),
        (79, 6, True),
        (80, 6, False),  # created, and its swap has not landed
        (69, 6, False),
        (90, 7, False),  # of a broker that has replaced this one
        (3, 3, True),  # older than the log: swept long ago
    ],
)
def test_an_object_is_real_only_if_its_epoch_owned_its_number(number: int, epoch: int, real: bool) -> None:
    assert is_real(ObjectName(number, epoch), FRAME) is real


def test_only_what_is_not_real_and_of_a_lower_epoch_may_be_swept() -> None:
    assert is_sweepable(ObjectName(50, 4), FRAME)
    assert not is_sweepable(ObjectName(49, 4), FRAME)
    assert not is_sweepable(ObjectName(80, 6), FRAME), "our own, not landed yet"
    assert not is_sweepable(ObjectName(90, 7), FRAME), "our successor's"


def test_keys_say_what_an_object_is_and_sort_by_number() -> None:
    name = ObjectName(12, 3, "2026-11-24T05", 7, 90, "ab12")

    assert parse(archive_key(name)) == name
    assert parse(segment_key(12, 3)) == ObjectName(12, 3)
    assert segment_key(9, 3) < segment_key(10, 1)
    assert parse("queue.json") is None
