"""What a new broker finds beside the root: an old root that was put back alone is refused."""

from __future__ import annotations

import pytest

from osqueue.broker.takeover import take_over
from osqueue.clock import wall_ms
from osqueue.core import codec
from osqueue.core.model import Frame
from osqueue.core.objects import ObjectName, archive_key, segment_key
from osqueue.core.settings import QueueSettings
from osqueue.errors import Corrupt
from osqueue.storage import ROOT_KEY, MemoryStorage

HOUR_MS = 3_600_000


@pytest.fixture
def storage() -> MemoryStorage:
    """A queue whose only broker, of epoch 1, has gone."""
    storage = MemoryStorage()
    take_over(storage, QueueSettings())
    return storage


def write_root_at(storage: MemoryStorage, now_ms: int) -> None:
    data, version = storage.read(ROOT_KEY)
    frame = Frame(epoch=codec.decode_root(data).epoch, now_ms=now_ms)
    storage.compare_and_swap(ROOT_KEY, codec.encode_root(frame, []), version)


def archived(epoch: int, at_ms: int) -> str:
    return archive_key(ObjectName(7, epoch, codec.hour(at_ms), 1, 2, "0" * 64))


@pytest.mark.parametrize("hours", [0, 1, 50, 5_000])
@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_a_root_older_than_an_archive_object_is_refused_and_not_replaced(
    hours: int, share: float, storage: MemoryStorage
) -> None:
    now_ms = wall_ms()
    write_root_at(storage, now_ms - hours * HOUR_MS)
    storage.create(archived(2, now_ms - round((1 - share) * hours * HOUR_MS)), b"{}\n")
    before = storage.read(ROOT_KEY)

    with pytest.raises(Corrupt, match="older than objects beside it"):
        take_over(storage, QueueSettings())

    assert storage.read(ROOT_KEY) == before


def test_a_root_older_than_a_segment_is_refused(storage: MemoryStorage) -> None:
    storage.create(segment_key(7, 2), b"{}\n")

    with pytest.raises(Corrupt, match="older than objects beside it"):
        take_over(storage, QueueSettings())


def test_what_a_crash_leaves_in_the_present_epoch_is_not_newer(storage: MemoryStorage) -> None:
    storage.create(segment_key(7, 1), b"{}\n")
    storage.create(archived(1, wall_ms()), b"{}\n")

    assert take_over(storage, QueueSettings()).frame.epoch == 2
