"""The numbered operations, in the order of a job's life: push, report, cancel, requeue, discard.

Each checks first and changes last: it returns `Refused`, or raises `NeedsObjectsError`, before anything has changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import assert_never

from msgspec import structs

from osqueue.core import codec, lane_order, policy
from osqueue.core.lanes import LaneKey
from osqueue.core.locator import Place
from osqueue.core.messages import (
    MAX_DELAY_S,
    MAX_IDS,
    MAX_OUTCOMES,
    AnswerBody,
    Cancel,
    Cancelled,
    Changed,
    Discard,
    JobError,
    Operation,
    Outcome,
    Push,
    Refused,
    Report,
    Reported,
    Requeue,
    refused_as_corrupt,
)
from osqueue.core.model import Job
from osqueue.core.pushing import Pushing
from osqueue.core.runs import to_runs
from osqueue.core.state import QueueState
from osqueue.errors import Corrupt


class Operations:
    """Applies operations of a session to the queue's state."""

    def __init__(self, state: QueueState, seed: str) -> None:
        self._state = state
        self._seed = seed
        self._pushing = Pushing(state)

    def apply(self, session: str, operation: Operation, now_ms: int) -> AnswerBody:
        """Apply one operation.

        Raises:
            NeedsObjectsError: segments must be in memory first; nothing has changed.
        """
        if isinstance(operation, Cancel | Requeue | Discard) and len(operation.ids) > MAX_IDS:
            return Refused("rejected", f"too many ids in one operation ids={len(operation.ids)} limit={MAX_IDS}")
        if isinstance(operation, Report) and (said := len(operation.outcomes)) > MAX_OUTCOMES:
            return Refused("rejected", f"too many outcomes in one report outcomes={said} limit={MAX_OUTCOMES}")
        match operation:
            case Push():
                return self._pushing.push(session, operation, now_ms)
            case Report():
                return self._report(session, operation, now_ms)
            case Cancel():
                return self._cancel(operation, now_ms)
            case Requeue():
                return self._requeue(operation, now_ms)
            case Discard():
                return self._discard(operation, now_ms)
            case _:
                assert_never(operation)

    # ------------------------------------------------------------------------------------------------------- report

    def _report(self, session: str, report: Report, now_ms: int) -> AnswerBody:
        lease = self._state.leases.get(report.lease)
        if lease is None or lease.session != session:
            return Reported(to_runs(sorted(outcome.id for outcome in report.outcomes)))
        if wrong := [outcome.id for outcome in report.outcomes if not _is_sayable(outcome)]:
            return Refused("rejected", f"an outcome's times or delay are out of range id={wrong[0]}")
        hopeless = self._see_keys(report.outcomes)
        places = self._state.backlog.locate([outcome.id for outcome in report.outcomes], lease.runs.find)
        clean = codec.clean([o.result if o.verdict == "succeeded" else b"0" for o in report.outcomes])
        lost = []
        succeeded: list[Place] = []
        for outcome, place, is_clean in zip(report.outcomes, places, clean, strict=True):
            if place is None or (run := lease.release(place, outcome.attempt)) is None:
                lost.append(outcome.id)
                continue
            outcome.worker = policy.clip(outcome.worker) or lease.worker
            if outcome.follow_ups and outcome.verdict == "succeeded":
                self._see_that_they_can_follow(outcome, place.job, hopeless.get(outcome.id))
            if outcome.verdict == "succeeded":
                succeeded.append(place)
                self._state.finish(place.job, "succeeded", now_ms=now_ms, outcome=outcome, clean=is_clean)
                # Afterwards: the job's own key is free by then, so that it may push its next run.
                self._pushing.push_all(outcome.follow_ups or (), now_ms)
            else:
                self._settle(place, outcome, now_ms, alone=run[3])
        self._remove(succeeded)
        if not lease.standing and not lease.runs:
            self._state.leases.end(lease)
        return Reported(to_runs(sorted(lost)))

    def _see_keys(self, outcomes: Iterable[Outcome]) -> dict[int, Refused]:
        """Have the holders of follow-up jobs' keys known before anything changes; by id, why they cannot be.

        Raises:
            NeedsObjectsError: objects of keys must be in memory first.
        """
        hopeless = {}
        for outcome in outcomes:
            if not outcome.follow_ups:
                continue
            try:
                self._pushing.see_keys(outcome.follow_ups)
            except Corrupt as error:
                hopeless[outcome.id] = refused_as_corrupt(error)
        return hopeless

    def _see_that_they_can_follow(self, outcome: Outcome, parent: Job, refusal: Refused | None) -> None:
        """If what a successful job leaves behind cannot be pushed, its attempt has failed."""
        if refusal is None:
            refusal = self._pushing.refuse_all(outcome.follow_ups or (), parent)
        if refusal is not None:
            why = f"its follow-up jobs cannot be pushed: {refusal.message}"
            outcome.verdict = "failed"
            outcome.error = JobError(refusal.code.title().replace("_", ""), why, attempt=outcome.attempt)

    def _remove(self, succeeded: list[Place]) -> None:
        """Jobs that have just succeeded leave their places."""
        for task, count in Counter([place.job.task for place in succeeded]).items():
            self._state.counts.move(task, "leased", "succeeded", count)
        self._state.backlog.remove_leased(succeeded)

    def _settle(self, place: Place, outcome: Outcome, now_ms: int, *, alone: bool) -> None:
        """An attempt that its lease has just let go and that has not succeeded."""
        state = self._state
        match outcome.verdict:
            case "failed" | "dead":
                state.charge(place, outcome, now_ms=now_ms, seed=self._seed)
            case "returned":
                state.give_back([(place.object, place.slot, place.slot, outcome.attempt, alone)])
            case "cancelled":
                self._end(place, outcome, now_ms)
            case "succeeded":
                raise AssertionError("a success is not settled here")
            case _:
                assert_never(outcome.verdict)

    # --------------------------------------------------------------------------------------- cancel, requeue, discard

    def _cancel(self, cancel: Cancel, now_ms: int) -> AnswerBody:
        state = self._state
        places = state.locate_first(cancel.ids)
        changed: set[int] = set()
        notices: dict[str, list[int]] = {}
        for job_id, place in zip(cancel.ids, places, strict=False):
            if place is None or job_id in changed or state.backlog.is_dead(place):
                continue
            if state.backlog.is_waiting(place):
                source = "delayed" if state.backlog.is_delayed(place) else "ready"
                state.backlog.remove_waiting(place)
                state.counts.move(place.job.task, source, "cancelled")
                state.finish(place.job, "cancelled", now_ms=now_ms)
            elif cancel.running and (lease := state.lease_of(place)) is not None:
                released = lease.release(place, place.job.attempts + 1)
                assert released is not None, "the lease that holds it lets it go"
                notices.setdefault(lease.session, []).append(job_id)
                self._end(place, None, now_ms)
                if not lease.standing and not lease.runs:
                    state.leases.end(lease)
            else:
                continue
            changed.add(job_id)
        state.outbox.extend((session, Cancelled(ids)) for session, ids in notices.items())
        if not changed and len(places) == len(cancel.ids):
            self._see_damage(job_id for job_id in cancel.ids if state.finished.get(job_id) is None)
        return self._changed(changed, cancel.ids, len(places))

    def _see_damage(self, ids: Iterable[int]) -> None:
        """That a job "had ended" is more than anybody knows while its segment is damaged.

        Raises:
            Corrupt: one of these jobs may be there.
        """
        for damage in self._state.backlog.located.damage(ids).values():
            raise damage

    def _end(self, place: Place, outcome: Outcome | None, now_ms: int) -> None:
        """A leased job that is cancelled."""
        self._state.backlog.remove_leased([place])
        self._state.counts.move(place.job.task, "leased", "cancelled")
        self._state.finish(place.job, "cancelled", now_ms=now_ms, outcome=outcome)

    def _requeue(self, requeue: Requeue, now_ms: int) -> AnswerBody:
        state = self._state
        places = self._with_lanes(state.locate_first(requeue.ids))
        if requeue.ids and not places:
            return Refused("queue_full", lane_order.TOO_MANY)
        dead = self._dead(places)
        requeued, held = [], []
        for place in dead:
            job = place.job
            if (holder := state.keys.holder(job.key)) is not None:
                held.append((job.id, holder))
                continue
            state.backlog.remove_waiting(place)
            state.backlog.defer([structs.replace(job.apart(), granted=job.attempts, due_ms=now_ms)], now_ms)
            state.keys.take(job)
            state.counts.move(job.task, "dead", "ready")
            requeued.append(job.id)
        return self._changed(requeued, requeue.ids, len(places), held)

    def _with_lanes(self, places: list[Place | None]) -> list[Place | None]:
        """The first of these jobs, as many as may wait if they are dead: there must be room for their lanes.

        Raises:
            NeedsObjectsError, Corrupt: who has a key is to be known before anything changes.
        """
        state = self._state
        free = [place for place in self._dead(places) if state.keys.holder(place.job.key) is None]
        lanes: set[LaneKey] = set()
        for place in free:
            lane = (-place.job.priority, place.job.task)
            if lane not in lanes and not state.backlog.lanes.can_add(lanes | {lane}):
                return places[: places.index(place)]
            lanes.add(lane)
        return places

    def _discard(self, discard: Discard, now_ms: int) -> AnswerBody:
        state = self._state
        places = state.locate_first(discard.ids)
        dead = self._dead(places)
        for place in dead:
            state.backlog.remove_waiting(place)
            state.counts.move(place.job.task, "dead", "discarded")
            state.finish(place.job, "dead", now_ms=now_ms)
        return self._changed([place.job.id for place in dead], discard.ids, len(places))

    def _dead(self, places: Iterable[Place | None]) -> list[Place]:
        """Those of these jobs that are dead, each once."""
        found = {place.job.id: place for place in places if place is not None}
        return [place for place in found.values() if self._state.backlog.is_dead(place)]

    def _changed(
        self, changed: Iterable[int], asked: list[int], looked_at: int, held: Iterable[tuple[int, int]] = ()
    ) -> Changed:
        """The answer of an operation that has looked at so many of the ids that it names."""
        left = len(asked) - looked_at
        return Changed(to_runs(sorted(changed)), self._unknown(asked[:looked_at]), [*held], left)

    # ------------------------------------------------------------------------------------------------------ look-ups

    def _unknown(self, ids: Iterable[int]) -> list[int]:
        return sorted({job_id for job_id in ids if not 0 < job_id < self._state.frame.next_id})


def _is_sayable(outcome: Outcome) -> bool:
    """Whether its times can be written as dates and its delay is one; what follows may then not fail half-way."""
    delay_s = outcome.retry_delay_s
    if delay_s is not None and not 0 <= delay_s <= MAX_DELAY_S:
        return False
    return 0 <= outcome.started_ms <= codec.LAST_MS and 0 <= outcome.finished_ms <= codec.LAST_MS
