"""``osqueue run``: a batch, start to end, in a pool of worker processes."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import sys
import time

from osqueue.cli import exit_status
from osqueue.cli.command import Command, count, seconds
from osqueue.cli.exit_status import UsageError
from osqueue.cli.line_source import BrokenLine, LineSource
from osqueue.cli.output import jobs_and
from osqueue.cli.target import find_directory
from osqueue.clock import boot_ms
from osqueue.core.messages import Stats
from osqueue.errors import Rejected
from osqueue.pool import LocalPool

_STANDING_POLL_S = 0.02


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("handler", metavar="MODULE:FUNCTION", help="called with each payload, in worker processes")
    parser.add_argument("--file", metavar="F", help="a payload from each line, all of them anew; - is standard input")
    parser.add_argument("--lines", action="store_true", help="take each line as a string, not as JSON")
    parser.add_argument("-j", "--workers", metavar="N", type=count, help="worker processes (default: one a CPU)")
    parser.add_argument("--path", metavar="DIR", help="keep the queue here; without --file, finish what waits in it")
    parser.add_argument("--grace", metavar="S", type=seconds, default=10.0, help="seconds to wait before a stop kills")


def _run(options: argparse.Namespace) -> int:
    _make_importable(options.handler)
    if options.file is None and (options.path is None or options.lines):
        raise UsageError("run takes --file, or --path alone to finish what waits there")
    if options.path is not None:
        find_directory(options.path, create=options.file is not None)
    try:
        if options.file is None:
            return _run_batch(None, options)
        with LineSource(options.file, lines=options.lines) as source:
            return _run_batch(source, options)
    except KeyboardInterrupt as stop:
        if options.path is not None:
            stop.args = (f"{str(stop) or 'stopped by Ctrl-C'}; {_how_to_go_on(options)}",)
        raise


def _how_to_go_on(options: argparse.Namespace) -> str:
    command = shlex.join(["osqueue", "run", options.handler, "--path", options.path])
    return f"what has not finished waits in {options.path}; to finish it: {command}"


def _make_importable(handler: str) -> None:
    """Put the current directory where workers look for modules, and refuse early what none of them could import."""
    sys.path.insert(0, os.getcwd())
    module, _, function = handler.partition(":")
    if not module or not function:
        raise UsageError(f"{handler!r} is no handler; write module:function")
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise UsageError(f"there is no module {module!r} here or on Python's path handler={handler}")


def _run_batch(source: LineSource | None, options: argparse.Namespace) -> int:
    started_ms = boot_ms()
    refusal: BrokenLine | Rejected | None = None
    with LocalPool(options.handler, workers=options.workers, path=options.path, grace=options.grace) as pool:
        before = pool.stats()
        try:
            if source is not None:
                pool.push_many(source.values())
        except (BrokenLine, Rejected) as error:
            # What came before the bad line is pushed, so it runs to its end; then the command fails.
            refusal = error
        after = pool.join()
        if _ended(after) == _ended(before):
            _see_a_worker_stand(pool)
        # Not by leaving the block, which would wait, and warn of other tasks' jobs, a second time.
        pool.stop()
    _report(before, after, (boot_ms() - started_ms) / 1000)
    if refusal is not None and source is not None:
        raise _explained(refusal, source)
    return exit_status.FAILED if after.dead > before.dead else exit_status.DONE


def _ended(stats: Stats) -> int:
    return stats.succeeded + stats.dead + stats.cancelled


def _see_a_worker_stand(pool: LocalPool[object, object]) -> None:
    """Nothing has run: whether workers can import the handler is still to be seen.

    Raises:
        PoolBroken: they cannot.
    """
    while pool.stats().workers == 0:
        time.sleep(_STANDING_POLL_S)


def _report(before: Stats, after: Stats, took_s: float) -> None:
    succeeded = after.succeeded - before.succeeded
    dead = after.dead - before.dead
    cancelled = after.cancelled - before.cancelled
    jobs = succeeded + dead + cancelled
    parts = [f"{succeeded} succeeded", f"{dead} dead"] + ([f"{cancelled} cancelled"] if cancelled else [])
    rate = jobs / max(took_s, 0.001)
    print(f"{jobs_and(jobs)} in {took_s:.1f} s ({rate:.{0 if rate >= 10 else 1}f}/s): {', '.join(parts)}")


def _explained(refusal: BrokenLine | Rejected, source: LineSource) -> UsageError:
    place = "" if isinstance(refusal, BrokenLine) else f"{source.where()}: "
    pushed = getattr(refusal, "pushed", 0)
    before_it = f"{jobs_and(pushed, ('was', 'were'))} pushed before it, and {'has' if pushed == 1 else 'have'} run"
    return UsageError(f"{place}{refusal}; {before_it}")


RUN = Command("run", "run a function over every line of a file, in worker processes", _add_arguments, _run)
