"""Commands that look at a queue and change nothing: ``status``, ``list``, ``show``, ``history``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from typing import get_args

import msgspec

from osqueue.cli import exit_status
from osqueue.cli.command import Command, add_json, add_target, count, seconds
from osqueue.cli.output import indented, moment, print_json, print_table, printable, record_document, shown
from osqueue.cli.target import open_queue
from osqueue.clock import from_iso, wall_ms
from osqueue.core.messages import JobError, JobRecord, State, Stats, TaskStats

_STATES: tuple[State, ...] = get_args(State)
_ARCHIVED: tuple[State, ...] = ("succeeded", "cancelled")

# --------------------------------------------------------------------------------------------------------------- status


def _add_status_arguments(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    add_json(parser)


def _status(options: argparse.Namespace) -> int:
    with open_queue(options.target) as queue:
        stats = queue.stats()
    if options.json:
        document = msgspec.to_builtins(stats)
        document.pop("type", None)
        print_json(document)
        return exit_status.DONE
    _print_counts(stats, options.target)
    if set(stats.tasks) - {"default"}:
        print()
        _print_tasks(stats.tasks)
    return exit_status.DONE


def _print_counts(stats: Stats, target: str) -> None:
    notes = {
        "ready": f"the oldest for {stats.oldest_ready_s:.1f} s" if stats.oldest_ready_s is not None else "",
        "running": f"in {stats.workers} workers" if stats.workers else "",
        "dead": f"osqueue list {target} --state dead" if stats.dead else "",
    }
    width = len(str(stats.pushed))
    for name in (*_STATES, "discarded", "pushed"):
        line = f"{name:9}  {getattr(stats, name):{width}}  {notes.get(name, '')}"
        print(line.rstrip())


def _print_tasks(tasks: dict[str, TaskStats]) -> None:
    names = (*_STATES, "discarded", "pushed")
    rows = [[printable(task), *(str(getattr(of, name)) for name in names)] for task, of in sorted(tasks.items())]
    print_table(["TASK", *map(str.upper, names)], rows)


# ----------------------------------------------------------------------------------------------------- list and history


def _add_list_arguments(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    parser.add_argument("--state", metavar="S", choices=_STATES, help=f"only jobs in this state: {', '.join(_STATES)}")
    add_json(parser)


def _list(options: argparse.Namespace) -> int:
    with open_queue(options.target) as queue:
        if options.state in _ARCHIVED:
            ended = (record for record in queue.history() if record.state == options.state)
            _print_records(ended, _finished_row, _FINISHED_HEADERS, options)
        else:
            _print_records(queue.list(options.state), _live_row, _LIVE_HEADERS, options)
    return exit_status.DONE


def _add_history_arguments(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    parser.add_argument("--since", metavar="T", type=_since_ms, default=0, help="1h, 7d …, or an ISO 8601 UTC time")
    add_json(parser)


def _since_ms(text: str) -> int:
    try:
        return from_iso(text)
    except ValueError:
        ago_ms = _ago_ms(text)
    return wall_ms() - ago_ms


def _ago_ms(text: str) -> int:
    try:
        return round(seconds(text) * 1000)
    except argparse.ArgumentTypeError:
        message = (
            f"{text!r} is no time; write 1h or 7d for so long ago, or an ISO 8601 UTC time like 2026-01-31T12:00:00Z"
        )
        raise argparse.ArgumentTypeError(message) from None


def _history(options: argparse.Namespace) -> int:
    with open_queue(options.target) as queue:
        _print_records(queue.history(options.since), _finished_row, _FINISHED_HEADERS, options)
    return exit_status.DONE


def _print_records(
    records: Iterable[JobRecord],
    row: Callable[[JobRecord], list[str]],
    headers: list[str],
    options: argparse.Namespace,
) -> None:
    if not options.json:
        print_table(headers, map(row, records))
        return
    for record in records:
        print_json(record_document(record))


_LIVE_HEADERS = ["ID", "STATE", "TASK", "PRIORITY", "ATTEMPTS", "PUSHED", "PAYLOAD"]


def _live_row(record: JobRecord) -> list[str]:
    return [
        str(record.id),
        record.state,
        printable(record.task),
        str(record.priority),
        str(record.attempts),
        moment(record.pushed_at),
        shown(record.payload),
    ]


_FINISHED_HEADERS = ["ID", "STATE", "TASK", "ATTEMPTS", "FINISHED", "RESULT"]


def _finished_row(record: JobRecord) -> list[str]:
    failed = record.errors and record.state != "succeeded"
    return [
        str(record.id),
        record.state,
        printable(record.task),
        str(record.attempts),
        moment(record.finished_at),
        _headline(record.errors[-1]) if failed else shown(record.result),
    ]


# ----------------------------------------------------------------------------------------------------------------- show


def _add_show_arguments(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    parser.add_argument("id", metavar="ID", type=count, help="the job's number")
    add_json(parser)


def _show(options: argparse.Namespace) -> int:
    with open_queue(options.target) as queue:
        record = queue.get(options.id)
    if options.json:
        print_json(record_document(record))
        return exit_status.DONE
    for name, value in _fields(record):
        if value:
            print(f"{name:9} {value}")
    for error in record.errors:
        _print_error(error)
    return exit_status.DONE


def _fields(record: JobRecord) -> Iterator[tuple[str, str]]:
    yield "job", str(record.id)
    yield "state", record.state
    yield "task", printable(record.task)
    yield "priority", str(record.priority or "")
    yield "key", printable(record.key or "")
    yield "attempts", str(record.attempts)
    yield "payload", shown(record.payload)
    yield "result", shown(record.result)
    yield "pushed", moment(record.pushed_at)
    yield "due", moment(record.due_at)
    yield "started", moment(record.started_at)
    yield "finished", moment(record.finished_at)
    yield "worker", printable(record.worker or "")
    if record.progress is not None:
        yield "progress", printable(f"{record.progress:.0%} {record.progress_message}".rstrip())


def _print_error(error: JobError) -> None:
    print(f"attempt {error.attempt}, {moment(error.at)}: {_headline(error)}")
    for line in indented(error.traceback):
        print(line)


def _headline(error: JobError) -> str:
    return printable(f"{error.error_type}: {error.message}" if error.message else error.error_type)


COMMANDS = (
    Command("status", "count the jobs by state and task", _add_status_arguments, _status),
    Command("list", "list the jobs that are not finished, and the dead ones", _add_list_arguments, _list),
    Command("show", "show one job: state, payload, result, errors", _add_show_arguments, _show),
    Command("history", "list finished jobs, the oldest first", _add_history_arguments, _history),
)
