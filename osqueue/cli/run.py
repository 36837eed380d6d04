"""``osqueue run``: a batch, start to end, in a pool of worker processes."""

from __future__ import annotations

import argparse
import shlex
import tempfile
from pathlib import Path

from osqueue.cli import exit_status
from osqueue.cli.command import Command, add_grace, count
from osqueue.cli.exit_status import UsageError, unopened
from osqueue.cli.handler import check_handler
from osqueue.cli.line_source import BrokenLine, LineSource
from osqueue.cli.output import jobs_and
from osqueue.cli.summary import Summary, see_a_worker_stand
from osqueue.cli.target import find_directory
from osqueue.errors import PoolBroken, Rejected
from osqueue.jobs import handler_name
from osqueue.pool import LocalPool
from osqueue.storage import StorageError


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("handler", metavar="MODULE:FUNCTION", help="called with each payload, in worker processes")
    parser.add_argument("--file", metavar="F", help="a payload from each line, all of them anew; - is standard input")
    parser.add_argument("--lines", action="store_true", help="take each line as a string, not as JSON")
    parser.add_argument("-j", "--workers", metavar="N", type=count, help="worker processes (default: one a CPU)")
    parser.add_argument("--path", metavar="DIR", help="keep the queue here; without --file, finish what waits in it")
    parser.add_argument("--json", action="store_true", help="print the counts as one JSON document")
    add_grace(parser)


def _run(options: argparse.Namespace) -> int:
    _check_handler(options.handler)
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
        _say_how_to_go_on(stop, f"{str(stop) or 'stopped by Ctrl-C'}; ", options)
        raise
    except StorageError as error:
        raise unopened(error, Path(options.path or tempfile.gettempdir())) from error
    except PoolBroken as error:
        _say_how_to_go_on(error, f"{error}\n", options)
        raise


def _check_handler(name: str) -> None:
    try:
        handler_name(name)
    except TypeError:
        raise UsageError(f"{name!r} is no handler; write module:function") from None
    check_handler(name)


def _say_how_to_go_on(error: BaseException, said: str, options: argparse.Namespace) -> None:
    if options.path is not None:
        command = shlex.join(["osqueue", "run", options.handler, "--path", options.path])
        error.args = (f"{said}what has not finished waits in {options.path}; to finish it: {command}",)


def _run_batch(source: LineSource | None, options: argparse.Namespace) -> int:
    refusal: BrokenLine | Rejected | None = None
    with LocalPool(options.handler, workers=options.workers, path=options.path, grace=options.grace) as pool:
        summary = Summary(pool.stats())
        try:
            # Before anything is pushed, since a file that was pushed in vain would have to be told from new lines.
            see_a_worker_stand(lambda: pool.stats().workers)
            if source is not None:
                pool.push_many(source.values())
        except (BrokenLine, Rejected) as error:
            # What came before the bad line is pushed, so it runs to its end; then the command fails.
            refusal = error
        after = pool.join()
        # Not by leaving the block, which would wait, and warn of other tasks' jobs, a second time.
        pool.stop()
    summary.print(after, as_json=options.json)
    if refusal is not None and source is not None:
        raise _explained(refusal, source)
    return exit_status.FAILED if summary.died(after) else exit_status.DONE


def _explained(refusal: BrokenLine | Rejected, source: LineSource) -> UsageError:
    place = "" if isinstance(refusal, BrokenLine) else f"{source.where()}: "
    pushed = getattr(refusal, "pushed", 0)
    before_it = f"{jobs_and(pushed, ('was', 'were'))} pushed before it, and {'has' if pushed == 1 else 'have'} run"
    return UsageError(f"{place}{refusal}; {before_it}")


RUN = Command("run", "run a function over every line of a file, in worker processes", _add_arguments, _run)
