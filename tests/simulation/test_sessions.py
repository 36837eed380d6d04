"""Sessions against the commit loop: whatever is lost on the way, all is answered, and happens once."""

from __future__ import annotations

import os

import pytest

from osqueue.client.runs import from_runs
from osqueue.core.messages import AnswerBody, Claim, Granted, Handout, Outcome, Push, Report, Reported, Verdict
from tests.simulation.network import LINGER_MS, Network

SEEDS = int(os.environ.get("OSQUEUE_SEEDS", "100"))
VERDICTS: tuple[Verdict, ...] = ("succeeded", "succeeded", "failed", "dead")


class Hands:
    """Keeps a standing lease, as a supervisor does."""

    def __init__(self) -> None:
        self.jobs: dict[int, Handout] = {}
        self.reported: set[tuple[int, int]] = set()
        """Ids and attempts whose report has not been answered."""
        self.lease = 0

    def held(self) -> list[tuple[int, int]]:
        return [*((job.id, job.attempt) for job in self.jobs.values()), *self.reported]

    def welcomed(self, lease: int) -> None:
        self.lease = lease

    def granted(self, message: Granted) -> None:
        self.lease = message.lease
        for job in message.jobs:
            assert job.id not in self.jobs, "handed out twice to one holder"
            self.jobs[job.id] = job

    def cancelled(self, ids: list[int]) -> None:
        self.lost(ids)

    def lost(self, ids: list[int]) -> None:
        for job_id in ids:
            self.jobs.pop(job_id, None)


class Talk(Network):
    """Clients that push, change and claim, and hands that claim and report."""

    def __init__(self, seed: int) -> None:
        self.hands = Hands()
        super().__init__(seed, self.hands)
        self.open_claims = 0

    def run(self) -> None:
        pick = self.random.choice
        what = [
            (4, lambda: self.push(pick([1, 3, 300]))),
            (3, lambda: self.change(pick([1, 400, 1200]))),
            (3, lambda: self.keeper.session.claim_standing(["default"], pick([1, 50, 500]), "hands")),
            (8, lambda: self.report(pick([1, 20, 200]))),
            (2, lambda: self.claim_once(pick([1, 20]))),
        ]
        self.storm([*what, *self.weather()], self.random.randrange(50, 800))
        self.calm(lambda: self.wait(LINGER_MS if self.unanswered else 1000), lambda: self.open_claims == 0, 400)

    def report(self, jobs: int) -> None:
        hands = self.hands
        chosen = [hands.jobs.pop(job_id) for job_id in [*hands.jobs][:jobs]]
        if not chosen:
            return
        hands.reported.update((job.id, job.attempt) for job in chosen)
        verdict = self.random.choice(VERDICTS)

        def reported(body: AnswerBody) -> None:
            hands.reported.difference_update((job.id, job.attempt) for job in chosen)
            if verdict == "succeeded":
                self.count_completed(chosen, body)

        delay_s = self.random.choice([None, 0])
        outcomes = [
            Outcome(job.id, job.attempt, verdict, retry_delay_s=delay_s, follow_ups=_follow_ups(job)) for job in chosen
        ]
        self.operate(self.keeper, Report(hands.lease, outcomes), reported)

    def claim_once(self, jobs: int) -> None:
        peer = self.client()
        self.open_claims += 1

        def granted(message: object) -> None:
            self.open_claims -= 1
            assert isinstance(message, Granted)
            if jobs := message.jobs:
                outcomes = [Outcome(job.id, job.attempt, "succeeded", follow_ups=_follow_ups(job)) for job in jobs]
                self.operate(peer, Report(message.lease, outcomes), lambda body: self.count_completed(jobs, body))

        peer.session.calls.claim(Claim(0, ["default"], jobs), granted, self.now_ms)

    def count_completed(self, jobs: list[Handout], body: AnswerBody) -> None:
        assert isinstance(body, Reported)
        lost = set(from_runs(body.lost))
        completed = [job for job in jobs if job.id not in lost]
        self.completed.update(job.id for job in completed)
        self.followed += sum(len(push.payloads) for job in completed for push in _follow_ups(job) or ())


def _follow_ups(job: Handout) -> list[Push] | None:
    """What a job leaves behind if it succeeds: some leave two jobs, whose own leave none."""
    return [Push([b'"follows"'] * 2, priority=1)] if job.id % 7 == 0 and job.payload != b'"follows"' else None


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_is_lost_everything_is_answered_and_happens_once(seed: int) -> None:
    talk = Talk(seed)

    talk.run()

    talk.everything_was_answered_and_happened_once()
    assert talk.open_claims == 0, "a claim is never answered"
    standing = [lease for lease in talk.bed.loop.machine.state.leases.all() if lease.standing]
    assert sum(lease.runs.slots for lease in standing) == len(talk.hands.jobs), "they have what their lease holds"
