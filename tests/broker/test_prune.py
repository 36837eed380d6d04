"""Pruning and the commit: nothing is deleted before the root says so, and nothing is counted twice."""

from __future__ import annotations

from osqueue.broker.archive import Archive
from osqueue.broker.effects import Delete, Lookup
from osqueue.core import codec
from osqueue.core.messages import Ask, GetJob, Page, Prune, Pruned, Refused, Reply
from osqueue.storage import MemoryStorage
from tests.broker.bed import START_MS, Bed
from tests.broker.test_lookup import ask, finish

LATER_MS = START_MS + 2 * 3_600_000


def archived(count: int) -> Bed:
    """A queue whose archive has one object, with so many jobs."""
    bed = Bed()
    bed.connect(1, "a")
    finish(bed, count)
    return Bed(bed.root, bed.store, LATER_MS)


def prune(bed: Bed, archive: Archive, *connections: int) -> None:
    """Ask for it, and have the reader look; the commit is still to land."""
    for connection in connections:
        bed.say(connection, Ask(7, Prune(LATER_MS)))
    look(bed, archive)


def look(bed: Bed, archive: Archive) -> None:
    for lookup in bed.waiting(Lookup):
        bed.pending.remove(lookup)
        old = archive.old(bed.loop.landed_frame, lookup.query)
        bed.loop.prune(lookup.connection, lookup.ticket, old.keys, old.pruned)
        bed.turn()


def opened(bed: Bed) -> tuple[Bed, Archive]:
    bed.connect(1, "b")
    bed.settle()
    return bed, bed.archive()


def replies(bed: Bed) -> list[Pruned | Refused]:
    return [message.body for message in bed.to(1, Reply) if isinstance(message.body, Pruned | Refused)]


def test_objects_are_deleted_and_counted_when_the_commit_has_landed() -> None:
    bed, archive = opened(archived(3))
    [key] = bed.store
    prune(bed, archive, 1)
    assert (replies(bed), bed.waiting(Delete)) == ([], [])

    bed.land()

    assert replies(bed) == [Pruned(1, 3)]
    assert codec.decode_root(bed.root).pruned == 3
    assert codec.decode_root(bed.root).trash == [key]
    bed.settle()
    assert bed.store == {}


def test_an_object_whose_deletion_a_crash_prevented_is_neither_read_nor_pruned_again() -> None:
    bed, archive = opened(archived(3))
    prune(bed, archive, 1)
    bed.land()

    after, archive = opened(Bed(bed.root, bed.store, LATER_MS))
    [send] = ask(after, GetJob(1))
    prune(after, archive, 1)
    after.settle()

    assert not isinstance(send.message.body, Page)
    assert replies(after) == [Pruned()]
    assert codec.decode_root(after.root).pruned == 3


def test_two_who_prune_at_once_count_each_job_once() -> None:
    bed, archive = opened(archived(3))
    bed.connect(2, "c")
    bed.settle()

    prune(bed, archive, 1, 2)
    bed.settle()
    look(bed, archive)
    bed.settle()

    assert codec.decode_root(bed.root).pruned == 3
    assert [message.body for message in bed.to(2, Reply)] == [Pruned()]


def test_a_running_brokers_list_of_objects_follows() -> None:
    bed, archive = opened(archived(3))
    archive.ask()
    [key] = bed.store
    frame = bed.loop.landed_frame
    assert [record.id for record in archive.find(frame, [1]).records] == [1]

    archive.dropped([key])

    assert archive.find(frame, [1]).records == []
    assert archive.old(frame, Prune(LATER_MS)).keys == []


def test_what_ended_in_the_hour_of_the_cut_off_is_kept() -> None:
    bed, archive = opened(archived(1))
    hour_ms = 3_600_000
    end_ms = START_MS // hour_ms * hour_ms + hour_ms

    assert archive.old(bed.loop.landed_frame, Prune(end_ms - 1)).keys == []
    assert len(archive.old(bed.loop.landed_frame, Prune(end_ms)).keys) == 1


def test_an_object_that_somebody_has_removed_is_not_counted() -> None:
    bed, _ = opened(archived(2))
    storage = MemoryStorage()
    [(key, data)] = bed.store.items()
    storage.create(key, data)
    archive = Archive(storage)
    archive.find(bed.loop.landed_frame, [99])
    storage.delete(key)

    assert archive.old(bed.loop.landed_frame, Prune(LATER_MS)).pruned == Pruned()


def test_of_many_who_prune_at_once_one_is_looked_at_and_the_others_wait_for_it() -> None:
    bed, _ = opened(archived(1))
    for connection in range(2, 100):
        bed.connect(connection, str(connection))
    bed.settle()

    for connection in range(1, 100):
        bed.say(connection, Ask(7, Prune(LATER_MS)))

    assert [lookup.connection for lookup in bed.waiting(Lookup)] == [1]
    assert bed.to(99, Reply) == []


def test_who_waits_for_another_that_could_not_be_looked_at_is_next() -> None:
    bed, archive = opened(archived(1))
    bed.connect(2, "c")
    bed.settle()
    bed.say(1, Ask(7, Prune(LATER_MS)))
    bed.say(2, Ask(7, Prune(LATER_MS)))
    bed.pending.remove(bed.waiting(Lookup)[0])

    bed.loop.prune_failed()
    bed.turn()
    look(bed, archive)
    bed.settle()

    assert [message.body for message in bed.to(2, Reply)] == [Pruned(1, 1)]


def test_who_has_gone_is_waited_for_no_more() -> None:
    bed, archive = opened(archived(1))
    for connection in (2, 3):
        bed.connect(connection, str(connection))
    bed.settle()
    for connection in (1, 2, 3):
        bed.say(connection, Ask(7, Prune(LATER_MS)))

    bed.loop.disconnected(2)
    look(bed, archive)
    bed.settle()

    assert [lookup.connection for lookup in bed.waiting(Lookup)] == [3]


def overfull(bed: Bed) -> list[str]:
    """More in the trash than may stand in the root while more is pruned."""
    trash = bed.loop.machine.state.frame.trash = [f"segments/{number:012}-000001.jsonl" for number in range(65)]
    return trash


def test_while_much_is_being_deleted_nothing_more_is_pruned_and_who_asks_waits() -> None:
    bed, _ = opened(archived(1))
    trash = overfull(bed)

    bed.say(1, Ask(7, Prune(LATER_MS)))
    assert (bed.waiting(Lookup), replies(bed)) == ([], [])

    assert bed.loop.prunes_wait
    bed.loop.deleted(trash[:1])
    bed.turn()
    bed.settle()
    assert len(bed.waiting(Lookup)) == 1


def test_while_too_much_cannot_be_deleted_pruning_is_refused_and_its_deletion_tried_again() -> None:
    bed, _ = opened(archived(1))
    trash = overfull(bed)
    bed.loop.not_deleted(trash)

    bed.say(1, Ask(7, Prune(LATER_MS)))

    [refused] = replies(bed)
    assert isinstance(refused, Refused)
    assert refused.code == "unavailable"
    assert bed.waiting(Lookup) == []
    assert bed.waiting(Delete) == [Delete([])]
