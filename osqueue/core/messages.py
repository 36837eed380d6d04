"""What goes into the queue's machine and what comes out: operations, queries, answers, notices.

    client ──Hello, Numbered(op), Ask(query), Claim, Heartbeat──▶ broker
    client ◀─Welcome, Answer, Reply, Granted, Finished, Missing, Cancelled, Lost── broker

Rules:
* Every message carries many jobs; the single-job call is the batch of one.
* A numbered operation may be said again: it has one effect and one answer. Queries and claims carry a ticket, which
  means something only on the connection that it came in on.
* Payloads and results are bytes that pass through.
* Times are milliseconds since 1970 in the broker's time (`osqueue.clock`), durations say their unit.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from osqueue.errors import Corrupt

MAX_IDS = 256
"""Ids that one operation may name, so that its answer, which the root remembers, stays small."""
MAX_OUTCOMES = 500
"""Outcomes of one report, for the same reason: the ids of all may be lost, each a run of its own of some 25 bytes."""
MAX_DELAY_S = 100 * 366 * 86_400
"""The longest delay of a push or of a retry: what is due can still be written as a date."""
_PUSH_OVERHEAD = 128
_PAYLOAD_OVERHEAD = 5
IdRun = tuple[int, int]
"""First and last of consecutive job ids, both included."""

State = Literal["delayed", "ready", "running", "succeeded", "dead", "cancelled"]
Verdict = Literal["succeeded", "failed", "dead", "returned", "cancelled"]


class JobError(Struct, omit_defaults=True, gc=False):
    """Why one attempt failed."""

    error_type: str
    message: str = ""
    traceback: str = ""
    attempt: int = 0
    at: str = ""
    signal: str | None = None
    exit_status: int | None = None
    rss_bytes: int | None = None


class Handout(Struct, array_like=True, gc=False):
    """A job on its way to whoever claimed it."""

    id: int
    attempt: int
    task: str
    payload: bytes
    pushed_ms: int
    timeout_s: float | None = None
    alone: bool = False
    """Hand it to a worker with nothing queued behind it: its last holder vanished with it."""
    last: bool = False
    """No other attempt may follow this one: its outcome is told before the worker begins another job."""


class Outcome(Struct, array_like=True, gc=False):
    """What became of one attempt, said by the holder of the job's lease.

    ``succeeded`` carries a result; ``failed`` and ``dead`` an error (``dead``: no further attempt); ``returned`` gives
    the job back uncharged; ``cancelled`` drops a job that its holder was asked to drop before it began.
    """

    id: int
    attempt: int
    verdict: Verdict
    started_ms: int = 0
    finished_ms: int = 0
    result: bytes = b"null"
    error: JobError | None = None
    retry_delay_s: float | None = None
    worker: str = ""
    follow_ups: list[Push] | None = None
    """With a success: jobs that are pushed in the same commit, or not at all."""

    def size(self) -> int:
        """How many bytes of the user's it carries, what its follow-up jobs say beside their payloads included."""
        if not self.follow_ups:
            return len(self.result)
        return len(self.result) + sum(push.size() for push in self.follow_ups)


class Holder(Struct, frozen=True, omit_defaults=True):
    """A local process that holds a lease: it ends when that process has ended, not by silence."""

    boot: str
    pid_namespace: str
    pid: int
    started: int
    blame: str = ""
    """Path of the file, below the queue directory, that says which jobs its workers run."""


# ---------------------------------------------------------------------------------------------- operations (numbered)


class Push(Struct, tag="push"):
    """Add jobs that share their options. The answer is `Pushed`, in payload order."""

    payloads: list[bytes]
    task: str = "default"
    priority: int = 0
    delay_s: float = 0
    timeout_s: float | None = None
    max_attempts: int | None = None
    key: str = ""
    """While an unfinished job has this key, nothing is pushed, and its id is the answer; of one payload alone."""
    watch: bool = False
    """Tell this session of each job's end (`Finished`)."""
    fitting: bool = False
    """Add the first ones, as many as ``max_queued`` leaves room for, perhaps none; otherwise it is all or a refusal."""

    def size(self) -> int:
        """How many bytes it takes in a message, roughly."""
        options = _PUSH_OVERHEAD + len(self.task) + len(self.key)
        return options + sum(map(len, self.payloads)) + _PAYLOAD_OVERHEAD * len(self.payloads)


class Report(Struct, tag="report"):
    """Outcomes of jobs under one lease. The answer is `Reported`."""

    lease: int
    outcomes: list[Outcome]


class Cancel(Struct, tag="cancel"):
    """End jobs that are not final; with ``running`` also those in a lease. The answer is `Changed`."""

    ids: list[int]
    running: bool = True


class Requeue(Struct, tag="requeue"):
    """Run dead jobs again, with ``max_attempts`` more. The answer is `Changed`."""

    ids: list[int]


class Discard(Struct, tag="discard"):
    """Drop dead jobs into the archive. The answer is `Changed`."""

    ids: list[int]


Operation = Push | Report | Cancel | Requeue | Discard


class Numbered(Struct, tag="numbered"):
    """An operation of the connection's session; ``acked``: the client has its answers up to there."""

    number: int
    acked: int
    operation: Operation


# ------------------------------------------------------------------------------------------------ answers to operations


class Pushed(Struct, tag="pushed"):
    ids: list[IdRun]


class Reported(Struct, tag="reported"):
    """``lost``: ids whose outcome was refused, since this lease does not hold that attempt."""

    lost: list[IdRun] = []


class Changed(Struct, tag="changed", omit_defaults=True):
    """``ids``: those that the operation changed; ``unknown``: those that no job ever had.

    ``held``: those that stay dead, since another unfinished job has their key by now; each with that job.
    ``left``: so many of the last ids that it named were not looked at, since that would have been too much at once;
    name them in another operation. At least one always is.
    """

    ids: list[IdRun]
    unknown: list[int] = []
    held: list[tuple[int, int]] = []
    left: int = 0


class Refused(Struct, tag="refused", omit_defaults=True):
    """``code`` is the snake-case name of the error class, ``key`` that of the object that is the cause, if one is."""

    code: str
    message: str
    key: str = ""


def refused_as_corrupt(error: Corrupt) -> Refused:
    """The refusal that says of some damage."""
    return Refused("corrupt", str(error), error.key or "")


AnswerBody = Pushed | Reported | Changed | Refused


class Answer(Struct, tag="answer"):
    number: int
    body: AnswerBody


class SayAgain(Struct, tag="say_again"):
    """Operations arrived with a gap: say them again from this number."""

    number: int


# ----------------------------------------------------------------------------------------------------------- connection


class Hello(Struct, tag="hello"):
    """First message of a connection.

    ``birth``: the root version told to this session in its first `Welcome`; 0 before. ``held``: id and attempt of
    each job that the session's lease still has here, those with unanswered outcomes included. ``watched``: ids whose
    end the client still waits for. ``leases``: those of single claims that the client knows of; what stands in another
    one of its session was never received, and goes back uncharged.
    """

    session: str
    birth: int = 0
    holder: Holder | None = None
    held: list[tuple[int, int]] = []
    watched: list[IdRun] = []
    leases: list[int] = []


class Welcome(Struct, tag="welcome"):
    """``birth``: what to say in later hellos; ``lease``: the session's standing lease, 0 for none.

    ``bounded``: whether there is a ``max_queued``, so that it matters soon which of the handed out jobs have begun.
    """

    birth: int
    epoch: int
    now_ms: int
    lease: int = 0
    max_payload: int = 0
    term_ms: int = 0
    bounded: bool = False


class Goodbye(Struct, tag="goodbye"):
    """The session ends and is forgotten. What its standing lease holds goes back; what it claimed singly is charged."""


class Claim(Struct, tag="claim"):
    """Take jobs.

    ``standing``: into the session's one lease, ``jobs`` more than was asked before, as they become ready, until the
    connection ends; one for no tasks takes back what was asked. Otherwise once, into a new lease, answered after at
    most ``wait_s`` (then perhaps with no job, or refused as ``queue_full`` by a `Reply`).
    """

    ticket: int
    tasks: list[str]
    jobs: int = 1
    standing: bool = False
    wait_s: float = 0
    worker: str = ""


class Granted(Struct, tag="granted"):
    ticket: int
    lease: int
    jobs: list[Handout]


class Progress(Struct, array_like=True, frozen=True, gc=False):
    """How far a running job is, as its handler says: ``fraction`` from 0 to 1, and a few words."""

    id: int
    fraction: float
    message: str = ""


class Heartbeat(Struct, tag="heartbeat"):
    """Extend a lease by one term; ``running``: ids that have begun. Answered by `Beaten`.

    ``progress``: of those whose handlers say it.
    """

    ticket: int
    lease: int
    running: list[int] = []
    progress: list[Progress] = []


class Beaten(Struct, tag="beaten"):
    ticket: int
    held: bool


class Cancelled(Struct, tag="cancelled"):
    """To a lease's holder: these jobs were cancelled; stop them."""

    ids: list[int]


class Lost(Struct, tag="lost"):
    """To a holder after its hello: these jobs are no longer its own."""

    ids: list[int]


class JobRecord(Struct, omit_defaults=True, gc=False, kw_only=True):
    """A job as users see it: live, dead or archived. Times are ISO 8601 UTC.

    Payload and result are JSON values as bytes (``payload``, ``result``); on disk, bytes that are not one clean line
    of JSON stand as base64.
    """

    id: int
    task: str = "default"
    state: State
    priority: int = 0
    payload: bytes = b""
    attempts: int = 0
    errors: tuple[JobError, ...] = ()
    result: bytes | None = None
    pushed_at: str = ""
    due_at: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    worker: str | None = None
    key: str | None = None
    progress: float | None = None
    """While it runs: how far it is, from 0 to 1, if its handler says so; and its words for it."""
    progress_message: str = ""


class Finished(Struct, tag="finished"):
    """To a watcher: these jobs ended (``succeeded``, ``dead`` or ``cancelled``). Payloads are left out."""

    jobs: list[JobRecord]


class Missing(Struct, tag="missing"):
    """To a watcher: these jobs are not to be found, neither among the unfinished ones nor in the archive, and why."""

    ids: list[int]
    why: Refused


# -------------------------------------------------------------------------------------------------------------- queries


class GetJob(Struct, tag="get"):
    id: int


class GetStats(Struct, tag="stats"):
    pass


class ListJobs(Struct, tag="list"):
    """Jobs of one state (None: every live one) with ids above ``after``, by id; a page at a time."""

    state: State | None = None
    after: int = 0
    limit: int = 1000


class History(Struct, tag="history"):
    """Finished jobs that ended at or after ``since_ms``, oldest object first; a page at a time."""

    since_ms: int = 0
    cursor: str = ""


class WaitIdle(Struct, tag="wait_idle"):
    """Answered with `Stats` once no job of these tasks is ready, delayed or running; refused as ``corrupt`` when only
    jobs of damaged segments are left, which nobody can run.
    """

    tasks: list[str]


class Prune(Struct, tag="prune"):
    """Delete objects of the archive whose hour had ended by ``before_ms``; the next few after ``cursor``, answered by
    `Pruned`.
    """

    before_ms: int
    cursor: str = ""


class WaitRoom(Struct, tag="wait_room"):
    """Answered with `Stats` once fewer than ``max_queued`` jobs wait; refused as ``corrupt`` when only jobs of damaged
    segments wait, which nobody can run.
    """


Query = GetJob | GetStats | ListJobs | History | WaitIdle | WaitRoom | Prune


class Ask(Struct, tag="ask"):
    ticket: int
    query: Query


class TaskStats(Struct):
    """Counts of one task's jobs. *running* means begun; handed out but not begun counts as ready.

    Together they are ``pushed``; *discarded* jobs are those that were dead, or were dropped with what was damaged.
    """

    ready: int = 0
    delayed: int = 0
    running: int = 0
    succeeded: int = 0
    dead: int = 0
    cancelled: int = 0
    discarded: int = 0
    pushed: int = 0


class Stats(Struct, tag="stats"):
    """Counts of the whole queue and, in ``tasks``, of each task. ``oldest_ready_s``: age of the oldest ready job."""

    ready: int = 0
    delayed: int = 0
    running: int = 0
    succeeded: int = 0
    dead: int = 0
    cancelled: int = 0
    discarded: int = 0
    pushed: int = 0
    workers: int = 0
    oldest_ready_s: float | None = None
    tasks: dict[str, TaskStats] = {}


class Page(Struct, tag="page"):
    """``cursor``: where the next page begins; empty when this is the last. ``damage``: why some jobs are lacking."""

    jobs: list[JobRecord]
    cursor: str = ""
    damage: Refused | None = None


class Pruned(Struct, tag="pruned", omit_defaults=True):
    """Objects of the archive that are deleted, and the jobs whose records they held. ``damaged``: how many were left
    alone, since nobody can say what is in them. ``cursor``: where to go on; empty when these were the last.
    """

    objects: int = 0
    jobs: int = 0
    damaged: int = 0
    cursor: str = ""


ReplyBody = Stats | Page | Pruned | Refused


class Reply(Struct, tag="reply"):
    ticket: int
    body: ReplyBody


ToBroker = Hello | Goodbye | Numbered | Claim | Heartbeat | Ask
FromBroker = Welcome | Answer | SayAgain | Granted | Beaten | Cancelled | Lost | Finished | Missing | Reply
