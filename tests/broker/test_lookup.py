"""What the archive answers: records, pages, and what it can no longer say."""

from __future__ import annotations

from osqueue.broker.effects import Lookup, Send
from osqueue.broker.lookup import look_up
from osqueue.core.messages import Finished, GetJob, Granted, History, Missing, Outcome, Page, Refused, Report
from tests.broker.bed import Bed


def finish(bed: Bed, count: int, result: bytes = b"1") -> None:
    """Push so many jobs, have them succeed, and seal their records into an object of their own."""
    bed.push(1, *[b"1"] * count)
    bed.claim(1, count)
    bed.settle()
    granted = bed.to(1, Granted)[-1]
    bed.operate(1, Report(granted.lease, [Outcome(job.id, 1, "succeeded", result=result) for job in granted.jobs]))
    bed.settle()
    bed.loop.close()
    bed.turn()
    bed.settle()


def ask(bed: Bed, query: GetJob | History | list[int]) -> list[Send]:
    return look_up(bed.archive(), bed.loop.landed_frame, Lookup(5, 0 if isinstance(query, list) else 7, query, []))


def ends(sends: list[Send]) -> tuple[list[int], list[int]]:
    """Which jobs have ended, and of which nothing is to be found."""
    finished = [job.id for send in sends if isinstance(send.message, Finished) for job in send.message.jobs]
    return sorted(finished), [
        job_id for send in sends if isinstance(send.message, Missing) for job_id in send.message.ids
    ]


def two_objects() -> Bed:
    """Jobs 1 and 2 in one object of the archive, job 3 in another."""
    bed = Bed()
    bed.connect(1, "a")
    finish(bed, 2)
    again = Bed(bed.root, bed.store, bed.now_ms)
    again.connect(1, "b")
    finish(again, 1)
    return again


def damage(bed: Bed, job_id: int) -> None:
    [key] = [key for key, data in bed.store.items() if key.startswith("archive/") and b'{"id":%d,' % job_id in data]
    bed.store[key] = bed.store[key].replace(b"succeeded", b"SUCCEEDED")


def test_the_ends_of_awaited_jobs_go_out_in_messages_that_are_small_enough() -> None:
    bed = Bed()
    bed.connect(1, "a")
    finish(bed, 20, b'"%s"' % (b"r" * 300_000))

    sends = ask(bed, [*range(1, 21)])

    assert ends(sends) == ([*range(1, 21)], [])
    assert len(sends) > 3
    assert {send.connection for send in sends} == {5}


def test_awaited_jobs_that_are_nowhere_are_said_to_be_missing_and_the_others_have_ended() -> None:
    assert ends(ask(two_objects(), [1, 3, 4])) == ([1, 3], [4])


def test_a_damaged_object_hides_its_own_records_only() -> None:
    bed = two_objects()
    damage(bed, 3)

    assert ends(ask(bed, [1, 2, 3])) == ([1, 2], [3])
    [one] = ask(bed, GetJob(1))
    assert isinstance(one.message.body, Page)
    [three] = ask(bed, GetJob(3))
    assert isinstance(three.message.body, Refused)
    assert three.message.body.code == "corrupt"
    [four] = ask(bed, GetJob(4))
    assert four.message.body.code == "job_not_found"


def test_the_page_of_a_damaged_object_is_empty_and_names_it_and_the_next_one_follows() -> None:
    bed = two_objects()
    damage(bed, 1)

    [first] = ask(bed, History())
    [second] = ask(bed, History(cursor=first.message.body.cursor))

    assert first.message.body.jobs == []
    assert first.message.body.damage.code == "corrupt"
    assert first.message.body.damage.key.startswith("archive/")
    assert [job.id for job in second.message.body.jobs] == [3]
    assert second.message.body.damage is None
