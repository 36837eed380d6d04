"""Properties that hold for any sequence of operations, restarts and losses of memory included."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import structs

from osqueue.client.runs import from_runs
from osqueue.core import codec, keys, lane_order, listing, locator
from osqueue.core.locator import Place
from osqueue.core.machine import QueueMachine
from osqueue.core.messages import (
    MAX_IDS,
    Ask,
    Cancel,
    Cancelled,
    Discard,
    Granted,
    Handout,
    Holder,
    JobError,
    ListJobs,
    Outcome,
    Push,
    Pushed,
    Refused,
    Reply,
    Requeue,
)
from osqueue.core.model import INLINE
from osqueue.core.objects import segment_key
from osqueue.core.queries import Elsewhere
from osqueue.core.segment import NeedsObjectsError
from tests.core.queue import Queue, Session, lost_ids, without

TASKS = ("default", "other")
ROOT_BYTES = 128 * 1024
UNBUDGETED = ("segments",)
"""Sections that may pass their budgets until they spill."""
BUDGETS = {"keys": 3 * 1024, "deferred": 5 * 1024, "dead": 4 * 1024, "tail": 22 * 1024, "finished": 16 * 1024}
BACKGROUND = ("sessions", "trash", "segments", "next_object")
"""What a commit may change by the way: small segments are merged as soon as they have been read."""
DELAYS_S = [0, 0, 0, 2, 20, 300, 3000, 20_000, 200_000, 2_000_000]

LOCAL = Holder("boot", "namespace", 1, 1)
"""Workers are local supervisors, whose leases have no term."""

MANY_LANES = 60
FEW_LANES = 4
priorities = st.one_of(st.integers(-1, 1), st.integers(-1000, 1000))
sizes = st.sampled_from([1, 10, 100, 2000, 30_000])


class AnySequence(RuleBasedStateMachine):
    """Two workers and a publisher do anything in any order."""

    max_queued: int | None = None

    @initialize(inline_keys=st.sampled_from([2, keys.INLINE_KEYS]), lag_ms=st.sampled_from([0, 300, 2000]),
                max_lanes=st.sampled_from([FEW_LANES, 40, lane_order.MAX_LANES]),
                together_bytes=st.sampled_from([3000, locator.TOGETHER_BYTES]))  # fmt: skip
    def open(self, inline_keys: int, lag_ms: int, max_lanes: int, together_bytes: int) -> None:
        self.patches = pytest.MonkeyPatch()
        self.patches.setattr(lane_order, "MAX_LANES", max_lanes)
        self.patches.setattr(locator, "TOGETHER_BYTES", together_bytes)
        self.patches.setattr(keys, "INLINE_KEYS", inline_keys)
        self.patches.setattr(listing, "_READ_AT_ONCE", 1)
        self.queue = Queue(max_attempts=2, retry_backoff_s=1.0, max_queued=self.max_queued)
        self.queue.lag_ms = lag_ms
        self.publisher = self.queue.session("publisher")
        self.lister = self.queue.session("lister")
        self.workers = [self.queue.session("one"), self.queue.session("two")]
        for worker in self.workers:
            worker.hello(holder=LOCAL)
        self.held: dict[str, list[Handout]] = {"one": [], "two": []}
        self.accepted: set[int] = set()
        self.final: dict[int, str] = {}
        self.keyed: dict[str, int] = {}
        self.query: ListJobs | None = None
        self.first_handed_out: dict[tuple[str, int], int] = {}

    def teardown(self) -> None:
        self.patches.undo()

    # ------------------------------------------------------------------------------------------------ what may happen

    @rule(count=st.sampled_from([1, 3, 40, 700]), size=sizes, task=st.sampled_from(TASKS),
          priority=priorities, delay=st.sampled_from(DELAYS_S))  # fmt: skip
    def push(self, count: int, size: int, task: str, priority: int, delay: float) -> None:
        count = min(count, max(1, 200_000 // size))
        room = count if self.max_queued is None else max(0, self.max_queued - self._waiting())
        payloads = [b'"%b"' % (b"x" * size)] * count
        ids = self._push(Push(payloads, task=task, priority=priority, delay_s=delay, fitting=True))
        if ids is None:
            return
        assert len(ids) == min(count, room), "as many as fit, and no more"
        assert not self.accepted & set(ids)
        self.accepted |= set(ids)

    def _push(self, push: Push) -> list[int] | None:
        """The ids; None if there were as many lanes as there may be, and none of them was the push's."""
        before = self._lanes()
        answer = self.publisher.say(push)
        if isinstance(answer, Pushed):
            return list(from_runs(answer.ids))
        assert answer == Refused("queue_full", lane_order.TOO_MANY)
        after = self._lanes()  # a standing claim may have emptied one since, while the commit was under way
        assert len(before | after) >= lane_order.MAX_LANES
        assert (-push.priority, push.task) not in before & after
        return None

    def _lanes(self) -> set[tuple[int, str]]:
        """Those in which something waits."""
        return {lane.key for lane in self.queue.machine.state.backlog.lanes if not lane.empty}

    @rule(first=st.integers(-1000, 1000 - MANY_LANES), task=st.sampled_from(TASKS), delay=st.sampled_from([0, 0, 20]))
    def push_into_many_lanes(self, first: int, task: str, delay: float) -> None:
        for priority in range(first, first + MANY_LANES):
            self.push(1, 10, task, priority, delay)

    @rule(first=st.integers(-1000, 1000 - MANY_LANES), who=st.integers(0, 1), requeue=st.booleans())
    def die_in_many_lanes(self, first: int, who: int, requeue: bool) -> None:
        """More of them than may wait: those before have left their lanes."""
        for at in range(first, first + MANY_LANES, FEW_LANES):
            for priority in range(at, at + FEW_LANES):
                self.push(1, 10, "default", priority, 0)
            self._collect()
            self.claim(who, FEW_LANES, TASKS)
            self.fail_everything(who, "dead", 1)
        if requeue:
            self.tend_the_dead(requeue)

    @rule(delay=st.sampled_from(DELAYS_S), size=st.sampled_from([10, 300]))
    def trickle(self, delay: float, size: int) -> None:
        for _ in range(10):
            self.push(30, size, "default", 0, delay)

    @rule(who=st.integers(0, 1), verdict=st.sampled_from(["failed", "dead"]), parts=st.sampled_from([1, 12]))
    def fail_everything(self, who: int, verdict: Any, parts: int) -> None:
        self._collect()
        worker = self.workers[who]
        held, self.held[worker.name] = self.held[worker.name], []
        error = JobError("ValueError", "no", "traceback" * 50)
        for at in range(parts):
            if part := held[at::parts]:
                worker.report(*[Outcome(job.id, job.attempt, verdict, 1, 2, b"1", error) for job in part])

    def _waiting(self) -> int:
        stats = self.publisher.stats()
        return stats.ready + stats.delayed

    @rule(who=st.integers(0, 1), data=st.data())
    def begin(self, who: int, data: Any) -> None:
        """A holder says what of its jobs has begun."""
        self._collect()
        held = [job.id for job in self.held[self.workers[who].name]]
        running = held[: data.draw(st.integers(0, min(3, len(held))))]
        before = self.queue.root
        self.workers[who].heartbeat(tuple(running))
        self._collect()
        assert self.queue.root == before, "costs no commit"
        states = {self.publisher.get(job_id).state for job_id in running}
        assert states <= {"running"}

    @rule(who=st.integers(0, 1), jobs=st.sampled_from([1, 5, 500]), tasks=st.sampled_from([TASKS, TASKS[:1]]))
    def claim(self, who: int, jobs: int, tasks: tuple[str, ...]) -> None:
        worker = self.workers[who]
        self._got(worker, worker.claim(jobs, tasks, standing=True))

    def _got(self, worker: Session, jobs: list[Handout]) -> None:
        everywhere = {job.id for jobs_ in self.held.values() for job in jobs_}
        for job in jobs:
            assert job.id not in everywhere, "handed out twice"
            assert job.id not in self.final, "handed out after its end"
        self.held[worker.name].extend(jobs)

    def _collect(self) -> None:
        """Standing claims are granted whenever there is a job: take what came."""
        for worker in self.workers:
            for message in worker.received(Granted):
                self._got(worker, message.jobs)
            for message in worker.received(Cancelled):
                gone = set(message.ids)
                self.held[worker.name] = [job for job in self.held[worker.name] if job.id not in gone]
            worker.inbox = [m for m in worker.inbox if not isinstance(m, (Granted, Cancelled))]

    @rule(who=st.integers(0, 1), data=st.data(), verdict=st.sampled_from(["succeeded", "failed", "dead", "returned"]))
    def report(self, who: int, data: Any, verdict: Any) -> None:
        self._collect()
        worker = self.workers[who]
        held = self.held[worker.name]
        if not held:
            return
        start = data.draw(st.integers(0, len(held) - 1))
        chosen = held[start : start + data.draw(st.sampled_from([1, 7, 300]))]
        error = JobError("ValueError", "no")
        reported = worker.report(*[Outcome(job.id, job.attempt, verdict, 1, 2, b"1", error) for job in chosen])
        assert reported.lost == []
        del held[start : start + len(chosen)]
        if verdict == "succeeded":
            self.final.update((job.id, "succeeded") for job in chosen)
        self._collect()
        again = worker.report(*[Outcome(job.id, job.attempt, "succeeded") for job in chosen])
        taken_back = {job.id for job in chosen} & {job.id for jobs in self.held.values() for job in jobs}
        assert set(lost_ids(again)) >= {job.id for job in chosen} - taken_back, "a completion is accepted once"
        for job_id in {job.id for job in chosen} - set(lost_ids(again)):
            self.final[job_id] = "succeeded"
            self.held[worker.name] = [job for job in self.held[worker.name] if job.id != job_id]

    @rule(data=st.data(), running=st.booleans(), count=st.sampled_from([1, 50]))
    def cancel(self, data: Any, running: bool, count: int) -> None:
        if not self.accepted:
            return
        first = data.draw(st.integers(1, max(self.accepted)))
        changed = self._change(Cancel(list(range(first, first + 2 * count, 2)), running))
        assert not changed & set(self.final)
        self.final.update(dict.fromkeys(changed, "cancelled"))
        self._collect()

    @rule(requeue=st.booleans())
    def tend_the_dead(self, requeue: bool) -> None:
        ids = [job.id for job in self.publisher.list("dead")][::2][:MAX_IDS]
        if not requeue:
            assert self._change(Discard(ids)) == set(ids)
            self.final.update(dict.fromkeys(ids, "dead"))
            return
        before = len(self._lanes())
        self._change(Requeue(ids))
        assert len(self._lanes()) <= max(before, lane_order.MAX_LANES)
        self.keyed.update({job.key: job.id for job in map(self.publisher.get, ids) if job.key and job.state != "dead"})

    def _change(self, operation: Cancel | Requeue | Discard) -> set[int]:
        """Do it in as many parts as it takes, or as there is room for; the ids that were changed."""
        changed: set[int] = set()
        ids = operation.ids
        while ids:
            part = ids[:MAX_IDS]
            answer = self.publisher.say(structs.replace(operation, ids=part))
            if isinstance(answer, Refused):
                assert isinstance(operation, Requeue)
                assert answer == Refused("queue_full", lane_order.TOO_MANY)
                assert len(self._lanes()) >= lane_order.MAX_LANES
                break
            assert answer.left < len(part), "it goes on"
            changed.update(from_runs(answer.ids))
            for job_id, holder in answer.held:
                assert self._is_unfinished(holder)
                assert self.publisher.get(job_id).key == self.publisher.get(holder).key
            ids = ids[len(part) - answer.left :]
        return changed

    @rule(state=st.sampled_from([None, "delayed", "dead"]), limit=st.sampled_from([7, 100, 1000]))
    def list_on(self, state: Any, limit: int) -> None:
        """One more try at a page, with nothing in memory but what the one before needed; anything happens meanwhile."""
        query = self.query = self.query or ListJobs(state, 0, limit)
        try:
            self.queue.machine.ask("lister", Ask(1, query), self.queue.now_ms)
        except NeedsObjectsError as error:
            self.queue.unload()
            self.queue.load(error.keys)
            return
        live = self._live()
        self.queue.commit()
        page = self.lister.received(Reply)[-1].body
        listed = range(query.after + 1, int(page.cursor) + 1 if page.cursor else max(live, default=0) + 1)
        asked_for = [job_id for job_id, where in sorted(live.items()) if query.state in (None, where)]
        assert [job.id for job in page.jobs] == [job_id for job_id in asked_for if job_id in listed]
        self.query = ListJobs(query.state, int(page.cursor), limit) if page.cursor else None

    @rule(seconds=st.sampled_from([0.5, 3.0, 25.0, 400.0]))
    def wait(self, seconds: float) -> None:
        self.queue.wait(seconds)

    @rule(seconds=st.sampled_from([3000, 100_000, 2_000_000]))
    def be_closed_for_long(self, seconds: int) -> None:
        self.queue.now_ms += seconds * 1000
        self.reopen()

    @rule()
    def say_again(self) -> None:
        self._let_no_time_pass()
        first = self.publisher.say(Push([b"1"], fitting=True))
        if isinstance(first, Pushed):
            self.accepted |= set(from_runs(first.ids))
        before = self.queue.root_values(without_sections=BACKGROUND)
        again = Push([b"1"], fitting=True)
        assert self.publisher.say(again, number=self.publisher.number, acked=0) == first
        assert self.queue.root_values(without_sections=BACKGROUND) == before, "twice is once"

    def _let_no_time_pass(self) -> None:
        """From now on, so that two roots can be compared."""
        self.queue.lag_ms = 0
        self.queue.commit()

    @rule()
    def refuse(self) -> None:
        self._let_no_time_pass()
        self.publisher.say(Push([]))
        before = self.queue.root_values(without_sections=BACKGROUND)
        assert self.publisher.say(Push([b"1"], priority=5000)).code == "rejected"
        assert self.queue.root_values(without_sections=BACKGROUND) == before, "a refusal changes nothing else"

    @rule()
    def forget_segments(self) -> None:
        self.queue.unload()

    @rule()
    def reopen(self) -> None:
        self._collect()
        self.queue.reopen()
        self.publisher.hello()
        for worker in self.workers:
            worker.hello(held=[(job.id, job.attempt) for job in self.held[worker.name]], holder=LOCAL)
            assert worker.lost() == [], "a restart takes nothing from a holder"
            self._collect()

    @rule(who=st.integers(0, 1), known=st.booleans(), data=st.data())
    def lose_a_holder(self, who: int, known: bool, data: Any) -> None:
        self._collect()
        worker = self.workers[who]
        held = self.held[worker.name]
        if not held:
            return
        on = data.draw(st.sampled_from(held))
        ran = [(on.id, on.attempt)] if known else []
        machine, now = self.queue.machine, self.queue.now_ms
        attempts = {job.id: self.publisher.get(job.id).attempts for job in held[:20]}
        self.queue.retry(lambda: machine.end_lease(worker.lease, ran, now, marks=not known))
        machine.disconnected(worker.name)
        worker.hello(holder=LOCAL)
        charged = {job.id for job in held if job.alone} if not known else {on.id}
        self.held[worker.name] = []
        self.queue.commit()
        for job_id, before in attempts.items():
            assert self.publisher.get(job_id).attempts == before + (job_id in charged)
        self._collect()

    @rule(key=st.sampled_from(["a", "b", "c"]), many=st.booleans(), delay=st.sampled_from(DELAYS_S))
    def push_with_a_key(self, key: str, many: bool, delay: float) -> None:
        for one in [f"{key}{number}" for number in range(50)] if many else [key]:
            holder = self.keyed.get(one)
            if holder is not None and not self._is_unfinished(holder):
                holder = None
            ids = self._push(Push([b"1"], key=one, delay_s=delay, fitting=True))
            if ids is None:
                assert holder is None
                continue
            if not ids:
                assert holder is None
                assert self._waiting() >= (self.max_queued or 0)
                continue
            [job_id] = ids
            assert (job_id == holder) is (holder is not None), "one unfinished job a key"
            self.accepted.add(job_id)
            self.keyed[one] = job_id

    def _is_unfinished(self, job_id: int) -> bool:
        try:
            record = self.publisher.get(job_id)
        except Elsewhere:
            return False
        return record.state in ("delayed", "ready", "running")

    # ------------------------------------------------------------------------------------------------- what must hold

    @invariant()
    def each_job_is_in_one_place(self) -> None:
        self._collect()
        records = Counter(record.id for record in self.queue.archived())
        assert all(count == 1 for count in records.values()), "one record each"
        state = self.queue.machine.state
        live = self._live()
        assert not live.keys() & records.keys()
        assert live.keys() | records.keys() == self.accepted
        tail = list(state.backlog.inline.listed("tail"))
        in_segments = [job for segment in state.backlog.located.ready() for job in segment.jobs or []]
        assert {job.attempts for job in tail + in_segments} <= {0}, "who has failed is among the deferred or the dead"
        assert records.keys() == self.final.keys()
        by_state = Counter(live.values())
        counts = [task for _, task in state.counts.items()]
        assert by_state["ready"] == sum(c.ready for c in counts)
        assert by_state["delayed"] == sum(c.delayed for c in counts)
        assert by_state["leased"] == sum(c.leased for c in counts)
        assert by_state["dead"] == sum(c.dead for c in counts)

    def _live(self) -> dict[int, str]:
        state = self.queue.machine.state
        live: dict[int, str] = {}
        places = [(INLINE, job_id, job) for job_id, job in state.backlog.inline.jobs.items()]
        for segment in state.backlog.segments.values():
            jobs = segment.jobs or codec.decode_segment(
                self.queue.store[segment.key], expected_digest=segment.line.digest, key=segment.key
            )
            places += [(segment.number, slot, job) for slot, job in enumerate(jobs)]
        leased = state.leases.held()
        for object_, slot, job in places:
            where = self._where(object_, slot, job, leased)
            if where is not None:
                assert job.id not in live, "in two places"
                live[job.id] = where
        return live

    def _where(self, object_: int, slot: int, job: Any, leased: Any) -> str | None:
        backlog = self.queue.machine.state.backlog
        place = Place(object_, slot, job)
        if backlog.is_dead(place):
            return "dead"
        if leased.find(object_, slot):
            return "leased"
        if not backlog.is_waiting(place):
            return None
        if object_ == INLINE or (segment := backlog.segments[object_]).dues is not None:
            return "delayed" if backlog.is_delayed(place) else "ready"
        is_due = job.due_ms <= segment.line.woken_ms or not segment.is_untaken(slot)
        return "ready" if is_due or segment.line.kind == "ready" else "delayed"

    @invariant()
    def holders_hold_what_they_were_given(self) -> None:
        leased = self.queue.machine.state.leases.held()
        assert leased.slots == sum(len(jobs) for jobs in self.held.values())

    @invariant()
    def the_root_is_within_its_budget(self) -> None:
        values = self.queue.root_values()
        spill = sum(len(values[name]) - 20_000 for name in UNBUDGETED if len(values[name]) > 20_000)  # type: ignore[arg-type]
        assert len(self.queue.root) - spill <= ROOT_BYTES
        for name, budget in BUDGETS.items():
            assert len(values[name]) <= budget, name  # type: ignore[arg-type]

    @invariant()
    def every_named_object_exists_and_no_other(self) -> None:
        named = {segment.key for segment in self.queue.machine.state.backlog.segments.values()}
        named |= {segment_key(one.number, one.epoch) for one in self.queue.machine.state.keys.objects()}
        assert {key for key in self.queue.store if key.startswith("segments/")} == named

    @precondition(lambda self: not self.queue.machine.changed)
    @invariant()
    def opening_from_bytes_gives_the_same_queue(self) -> None:
        root = codec.decode_root(self.queue.root)
        opened = QueueMachine(root, self.queue.settings, now_ms=root.now_ms)
        again = opened.plan(now_ms=root.now_ms, nonce="")
        assert again.objects == {}
        assert without(again.root, "trash") == without(self.queue.root, "trash")


class AnyBoundedSequence(AnySequence):
    """The same where few jobs may wait; retries and what comes back find room nevertheless."""

    max_queued = 50


AnySequence.TestCase.settings = AnyBoundedSequence.TestCase.settings = settings(
    max_examples=int(os.environ.get("OSQUEUE_EXAMPLES", "100")),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestAnySequence = AnySequence.TestCase
TestAnyBoundedSequence = AnyBoundedSequence.TestCase
