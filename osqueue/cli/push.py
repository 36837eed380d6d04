"""``osqueue push``: add jobs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from osqueue.cli import exit_status
from osqueue.cli.command import Command, add_json, add_target, count, seconds
from osqueue.cli.exit_status import CannotOpen, UsageError
from osqueue.cli.line_source import BrokenLine, LineSource, decode_json
from osqueue.cli.output import jobs_and, print_json
from osqueue.cli.target import open_queue
from osqueue.client import Client
from osqueue.errors import Rejected, Unavailable

_PUSHED = ("was pushed", "were pushed")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    parser.add_argument("payload", metavar="JSON", nargs="?", help="one payload")
    parser.add_argument("--file", metavar="F", help="a payload from each line of a file; - is standard input")
    parser.add_argument("--lines", action="store_true", help="take each line of the file as a string, not as JSON")
    parser.add_argument("--task", metavar="T", default="default", help="the handler's name (default: default)")
    parser.add_argument("--delay", metavar="S", type=seconds, default=0.0, help="seconds to wait before the first run")
    parser.add_argument("--priority", metavar="N", type=int, default=0, help="higher runs first, -1000 to 1000")
    parser.add_argument("--key", metavar="K", help="push nothing while an unfinished job has this key; print its id")
    parser.add_argument("--timeout", metavar="S", type=seconds, help="seconds after which a run is killed")
    parser.add_argument("--max-attempts", metavar="N", type=count, help="runs before the job is dead")
    add_json(parser)


def _run(options: argparse.Namespace) -> int:
    if (options.payload is None) == (options.file is None):
        raise UsageError("push takes either one JSON payload or --file")
    if options.payload is not None:
        return _push_one(options)
    if options.key is not None:
        raise UsageError("--key is for one payload, not for --file")
    with LineSource(options.file, lines=options.lines) as source, open_queue(options.target, create=True) as queue:
        with _naming_what_was_pushed(source):
            ids = _push(queue, source.encoded(), options)
        _print_ids(ids, options)
    return exit_status.DONE


def _push_one(options: argparse.Namespace) -> int:
    if options.lines:
        raise UsageError("--lines belongs to --file")
    decode_json(options.payload)
    payload = msgspec.json.format(options.payload.encode(), indent=-1)
    with open_queue(options.target, create=True) as queue:
        newest = queue.stats().pushed if options.key is not None else 0
        job_id = _push_payload(queue, payload, options)
    if job_id > newest:
        _print_ids([job_id], options)
        return exit_status.DONE
    if options.json:
        print_json({"pushed": 0, "first_id": job_id, "last_id": job_id})
    else:
        print(job_id)
        print(f"osqueue: job {job_id} has this key and is unfinished: nothing was pushed", file=sys.stderr)
    return exit_status.DONE


def _push_payload(queue: Client, payload: bytes, options: argparse.Namespace) -> int:
    return queue.push(
        payload,
        task=options.task,
        delay=options.delay,
        priority=options.priority,
        key=options.key,
        timeout=options.timeout,
        max_attempts=options.max_attempts,
    )


def _push(queue: Client, payloads: Iterable[bytes], options: argparse.Namespace) -> Sequence[int]:
    return queue.push_many(
        payloads,
        task=options.task,
        delay=options.delay,
        priority=options.priority,
        timeout=options.timeout,
        max_attempts=options.max_attempts,
    )


@contextmanager
def _naming_what_was_pushed(source: LineSource) -> Iterator[None]:
    try:
        yield
    except (BrokenLine, Rejected) as error:
        place = "" if isinstance(error, BrokenLine) else f"{source.where()}: "
        error.args = (f"{place}{error}; {jobs_and(getattr(error, 'pushed', 0), _PUSHED)} before it",)
        raise
    except (CannotOpen, Unavailable) as error:
        pushed = jobs_and(getattr(error, "pushed", 0), _PUSHED)
        error.args = (f"{error}; {pushed}, and perhaps some after them",)
        raise


def _print_ids(ids: Sequence[int], options: argparse.Namespace) -> None:
    first, last = (ids[0], ids[-1]) if ids else (None, None)
    if options.json:
        print(msgspec.json.encode({"pushed": len(ids), "first_id": first, "last_id": last}).decode())
    elif options.file is None:
        print(first)
    else:
        print(f"pushed {jobs_and(len(ids))}" + (f": {first} to {last}" if ids else ""))


PUSH = Command("push", "add jobs, durable when the command has ended", _add_arguments, _run)
