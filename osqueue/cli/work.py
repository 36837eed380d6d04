"""``osqueue work``: workers beside whoever has the queue open, or the whole pool if nobody has."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from osqueue.cli import exit_status
from osqueue.cli.command import Command, add_grace, add_target, count, seconds
from osqueue.cli.handler import check_handler, parse_handlers
from osqueue.cli.joining import JoinOrOpen, ProcessOpener
from osqueue.cli.summary import Summary, see_a_worker_stand
from osqueue.cli.target import find_directory
from osqueue.core.messages import Stats
from osqueue.errors import OsqueueError, Unavailable
from osqueue.jobs import Handlers, class_name
from osqueue.pool.directory import PoolDirectory
from osqueue.pool.engine import Engine, OnBroken, broker_start
from osqueue.pool.plan import PoolPlan
from osqueue.pool.warning import OtherTasks
from osqueue.settings import pool_settings, queue_settings
from osqueue.transport.connector import ProtocolFactory

_log = logging.getLogger("osqueue")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    parser.add_argument(
        "handlers", metavar="[TASK=]MODULE:FUNCTION", nargs="+", help="called with each payload, in worker processes"
    )
    parser.add_argument("-j", "--workers", metavar="N", type=count, help="worker processes (default: one a CPU)")
    parser.add_argument("--burst", action="store_true", help="end when no job of these tasks waits or runs")
    parser.add_argument("--timeout", metavar="S", type=seconds, help="seconds after which a run is killed")
    parser.add_argument(
        "--soft-timeout", metavar="S", type=seconds, help="seconds after which SoftTimeout is raised in the handler"
    )
    parser.add_argument(
        "--max-tasks-per-child", metavar="N", type=count, help="jobs after which a worker is replaced by another"
    )
    add_grace(parser)


def _run(options: argparse.Namespace) -> int:
    plan = _plan(options)
    engine = Engine(plan, _SharedBroker)
    try:
        engine.start()
    except BaseException:
        engine.abandon()
        raise
    try:
        status = _work(engine, plan, options)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            said = str(error) or "stopped by Ctrl-C"
            _log.warning("stopping: what still runs has %g s; a second signal stops at once", options.grace)
            error.args = (f"{said}; what has not finished waits in {options.target}",)
        _stop(engine, options.grace)
        raise
    _stop(engine, options.grace)
    return status


def _stop(engine: Engine, grace_s: float) -> None:
    try:
        engine.stop(grace_s)
    finally:
        if not engine.reactor.stopped:
            engine.abandon()  # a second signal came before the engine could take the first


def _plan(options: argparse.Namespace) -> PoolPlan:
    """What the workers are to be; nothing has been started or made before everything in it is checked."""
    handlers = Handlers(parse_handlers(options.handlers))
    for name in handlers.names.values():
        check_handler(name)
    pool = pool_settings(
        workers=options.workers,
        timeout=options.timeout,
        grace=options.grace,
        soft_timeout=options.soft_timeout,
        max_tasks_per_child=options.max_tasks_per_child,
    )
    return PoolPlan(
        handlers=handlers,
        directory=PoolDirectory(find_directory(options.target, create=not options.burst)),
        queue=queue_settings(),
        pool=pool,
        retry_on=(class_name(Exception),),
        no_retry_on=(),
        mp_context=None,
        knows_other_tasks=True,
    )


def _work(engine: Engine, plan: PoolPlan, options: argparse.Namespace) -> int:
    tasks = plan.handlers.tasks
    if options.burst:
        return _work_until_idle(engine, tasks)
    workers = plan.pool.workers
    print(f"working on {', '.join(tasks)} with {workers} worker{'' if workers == 1 else 's'}", flush=True)
    engine.broken.wait()
    assert engine.error is not None, "it is set first"
    raise engine.error


def _work_until_idle(engine: Engine, tasks: Sequence[str]) -> int:
    summary = Summary(engine.client.stats(), tasks)
    after = _idle(engine, tasks)
    if summary.ended(after) == 0:
        see_a_worker_stand(lambda: _standing(engine))
    OtherTasks(tasks).warn(after)
    summary.print(after)
    return exit_status.FAILED if summary.died(after) else exit_status.DONE


def _standing(engine: Engine) -> int:
    if engine.error is not None:
        raise engine.error
    return engine.workers()


def _idle(engine: Engine, tasks: Sequence[str]) -> Stats:
    while True:
        try:
            return engine.client.wait_idle(tasks)
        except Unavailable:
            if engine.error is not None:
                raise
            # For a minute nobody has served the queue; whenever somebody does, the question is asked again.


class _SharedBroker:
    """See `osqueue.pool.broker_process.Broker`: another's, or our own if there is no other.

    Args:
        plan: where the queue is, and how it is opened.
        on_broken: told if it can neither be joined nor opened any more.
    """

    def __init__(self, plan: PoolPlan, on_broken: OnBroken) -> None:
        self._on_broken = on_broken
        self._opener = ProcessOpener(broker_start(plan))
        self._way = JoinOrOpen(plan.directory.path, self._opener, stays=True)
        self.connectors = (self, self)

    async def open(self) -> None:
        await self._way.reach()

    async def stop(self) -> None:
        await self._opener.stop()

    def kill(self) -> None:
        self._opener.kill()

    async def connect(self, factory: ProtocolFactory) -> None:
        """See `osqueue.transport.connector.Connector`."""
        try:
            await self._way.connect(factory)
        except OsqueueError as error:
            self._on_broken(error)
            raise

    def close(self) -> None:
        """See `osqueue.transport.connector.Connector`."""
        self._way.close()


WORK = Command("work", "run a queue's jobs in worker processes, beside others", _add_arguments, _run)
