"""A worker process from its first line to its last."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import signal
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.reduction import DupFd
from types import FrameType
from typing import Any

from msgspec import Struct

from osqueue import host
from osqueue.blame import Slot
from osqueue.codec import load_codec
from osqueue.context import Stage, enter_worker
from osqueue.jobs import find, find_function, task_values
from osqueue.lifecycle import Course, Lifecycle
from osqueue.values import JsonValues
from osqueue.worker import lifeline
from osqueue.worker.attempt import Judgement, Task
from osqueue.worker.coroutine import Coroutines
from osqueue.worker.failure import describe
from osqueue.worker.inbox import Inbox
from osqueue.worker.loop import Loop, flush_stdio
from osqueue.worker.messages import NotUp, Up
from osqueue.worker.outbox import Outbox
from osqueue.worker.progress import ProgressTeller
from osqueue.worker.reader import Reader
from osqueue.worker.soft_timeout import SoftTimeouts


class WorkerSpec(Struct, frozen=True, kw_only=True):
    """What a worker is told at its start: names and numbers only, but for types and ``initargs`` of the pool.

    ``tasks``: task to the handler's ``module:name``. ``retry_on``, ``no_retry_on``: names of exception classes.
    ``codec``: name of what takes the place of JSON.
    """

    tasks: dict[str, str]
    blame_path: str
    slot: int
    supervisor_pid: int
    supervisor_started: int
    max_result_bytes: int
    timeout_s: float | None = None
    soft_timeout_s: float | None = None
    measure_memory: bool = False
    lifecycle: Lifecycle = Lifecycle()
    retry_on: tuple[str, ...] = ("builtins:Exception",)
    no_retry_on: tuple[str, ...] = ()
    payload_type: Any = None
    result_type: Any = None
    codec: str | None = None
    knows_other_tasks: bool = False
    """Whether others have handlers for tasks that this worker has none for, so that it may push for them."""


class PassedFd:
    """A descriptor as an argument of a process that multiprocessing starts."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        return (_receive_fd, (DupFd(self.fd),))


def _receive_fd(passed: Any) -> PassedFd:
    return PassedFd(passed.detach())


def work(channel: socket.socket, life: Connection, faults: PassedFd, spec: WorkerSpec) -> None:
    """The target of the worker's process.

    Args:
        channel: this end of the socket pair to the supervisor.
        life: the reading end of a pipe whose writing end the supervisor holds while it lives.
        faults: a file for `faulthandler`.
        spec: everything else.
    """
    for descriptor in (channel.fileno(), life.fileno(), faults.fd):
        os.set_inheritable(descriptor, False)  # noqa: FBT003
    lifeline.lead_group()
    lifeline.die_with_pipe(life.fileno())
    supervisor = lifeline.watch_supervisor(spec.supervisor_pid, spec.supervisor_started)
    _leave_sigint_to_supervisor()
    faulthandler.enable(file=faults.fd, all_threads=False)
    os.register_at_fork(after_in_child=lambda: _leave_to_parent(channel))
    outbox, stage = Outbox(channel), Stage(spec.timeout_s)
    enter_worker(stage)
    coroutines = Coroutines()
    soft = None if spec.soft_timeout_s is None else SoftTimeouts(spec.soft_timeout_s, coroutines)
    try:
        tasks, judgement = _load(spec, coroutines.wrap if soft is None else soft.wrap)
        course = spec.lifecycle.load(coroutines.wrap)
        started = host.start_time(os.getpid()) or 0
        slot = Slot(spec.blame_path, spec.slot, pid=os.getpid(), process_started=started)
        stage.worker_state = course.begin()
        stage.encoders = {name: task.payloads.encode_checked for name, task in tasks.items()}
        stage.encode_other = JsonValues(Any, "payload").encode_checked if spec.knows_other_tasks else None
        stage.max_payload_bytes = spec.max_result_bytes
    except BaseException as error:  # noqa: BLE001
        # An import, or the initializer, is the user's code: whatever it raises, sys.exit() too, is told, and then this
        # process ends.
        outbox.say(NotUp(describe(error, attempt=0)))
        raise SystemExit(1) from None
    stage.tell = ProgressTeller(outbox, stage).tell
    if soft is not None:
        soft.start()
    inbox = Inbox()
    ends = [life.fileno()] if supervisor is None else [supervisor]
    Reader(channel, inbox, outbox, stage).start(ends)
    gc.freeze()
    loop = Loop(
        tasks, judgement, slot=slot, stage=stage, inbox=inbox, outbox=outbox, measure_memory=spec.measure_memory
    )
    try:
        outbox.say(Up(os.getpid(), started))
        loop.run()
    except OSError:
        # What a handler raises never comes here: this is the socket.
        lifeline.watch_supervisor(spec.supervisor_pid, spec.supervisor_started)
        os._exit(lifeline.CANNOT_SPEAK)
    _finalize(course, stage.worker_state)
    flush_stdio()


def _load(
    spec: WorkerSpec, wrap: Callable[[Callable[[Any], Any]], Callable[[Any], Any]]
) -> tuple[dict[str, Task], Judgement]:
    tasks = {}
    codec = None if spec.codec is None else load_codec(spec.codec)
    for task, name in spec.tasks.items():
        handler = find_function(name)
        payloads, results = task_values(handler, spec.payload_type, spec.result_type, codec=codec)
        tasks[task] = Task(wrap(handler), payloads, results, spec.max_result_bytes)
    judgement = Judgement(
        retry_on=tuple(find(name) for name in spec.retry_on),
        no_retry_on=tuple(find(name) for name in spec.no_retry_on),
    )
    return tasks, judgement


def _finalize(course: Course, state: Any) -> None:
    try:
        course.end(state)
    except BaseException:  # noqa: BLE001
        # The worker ends anyway, sys.exit() or not, and what became of its jobs is told.
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            traceback.print_exc()


def _leave_sigint_to_supervisor() -> None:
    # A handler of our own and not SIG_IGN, which programs that a job executes would inherit.
    signal.signal(signal.SIGINT, _ignore)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def _ignore(signum: int, frame: FrameType | None) -> None:
    """Ctrl-C is the supervisor's business."""


def _leave_to_parent(channel: socket.socket) -> None:
    """In a process that a handler forks: it must neither talk to the supervisor nor keep the socket open."""
    channel.close()
    faulthandler.disable()
