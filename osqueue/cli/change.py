"""Commands that change jobs that are there: ``requeue``, ``discard``, ``cancel``.

Rules:
* What is asked for is done as far as it can be: an unknown id keeps nothing from the others.
* ``--state dead`` is every job that is dead at the beginning, in parts, in constant memory.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from osqueue.cli import exit_status
from osqueue.cli.command import Command, add_json, add_target, count
from osqueue.cli.exit_status import UsageError
from osqueue.cli.output import jobs_and, print_json
from osqueue.cli.target import open_queue
from osqueue.client import Client
from osqueue.core.messages import MAX_IDS, JobRecord
from osqueue.errors import Corrupt, JobNotFound, QueueFull, Unavailable

_NAMED_IDS = 10

Change = Callable[[Client, Sequence[int]], Sequence[int]]
"""Does it to some jobs, and says to which it was done; `JobNotFound` if there is none of them."""


def _add_dead_arguments(parser: argparse.ArgumentParser) -> None:
    _add_ids(parser, nargs="*")
    parser.add_argument("--state", choices=["dead"], help="every job that is dead, in place of ids")
    add_json(parser)


def _add_cancel_arguments(parser: argparse.ArgumentParser) -> None:
    _add_ids(parser, nargs="+")
    add_json(parser)


def _add_ids(parser: argparse.ArgumentParser, *, nargs: str) -> None:
    add_target(parser)
    parser.add_argument("ids", metavar="ID", type=count, nargs=nargs, help="a job's number")


def _requeue(options: argparse.Namespace) -> int:
    return _change_dead(options, "requeued", lambda queue, ids: queue.requeue(ids))


def _discard(options: argparse.Namespace) -> int:
    return _change_dead(options, "discarded", lambda queue, ids: queue.discard(ids))


def _cancel(options: argparse.Namespace) -> int:
    return _change(options, "cancelled", lambda queue, ids: queue.cancel_many(ids))


def _change_dead(options: argparse.Namespace, done: str, change: Change) -> int:
    if bool(options.ids) == bool(options.state):
        raise UsageError(f"name the jobs to be {done}, or write --state dead for all that are dead")
    if options.state:
        return _change_all_dead(options, done, change)
    return _change(options, done, change)


# ------------------------------------------------------------------------------------------------------------- by id


def _change(options: argparse.Namespace, done: str, change: Change) -> int:
    ids = list(dict.fromkeys(options.ids))
    with open_queue(options.target) as queue:
        changed = set(_in_parts(queue, iter(ids), done, change))
        pushed = queue.stats().pushed
        unknown = [job_id for job_id in ids if job_id > pushed]
        unchanged = [job_id for job_id in ids if job_id <= pushed and job_id not in changed]
        if options.json:
            print_json({done: len(changed), "unchanged": unchanged, "unknown": unknown})
        else:
            for job_id in unchanged:
                print(f"job {job_id} is left as it is: {_state(queue, job_id)}")
            print(f"{jobs_and(len(changed))} {done}")
    if unknown:
        named = ", ".join(map(str, unknown[:_NAMED_IDS])) + (", …" if len(unknown) > _NAMED_IDS else "")
        raise JobNotFound(f"no job has this id id={named}")
    return exit_status.DONE


def _state(queue: Client, job_id: int) -> str:
    """What the job is, which says why it was not changed."""
    try:
        record = queue.get(job_id)
    except JobNotFound:
        return "ended, its record no longer kept"
    except Corrupt as error:
        return str(error)
    if record.state == "dead" and record.key is not None:
        return f"dead, and another unfinished job has its key {record.key!r}"
    return record.state


# -------------------------------------------------------------------------------------------------------------- dead


def _change_all_dead(options: argparse.Namespace, done: str, change: Change) -> int:
    damage: list[Corrupt] = []
    with open_queue(options.target) as queue:
        # No more than are dead now: a job that is run again may be dead again before the last one has been seen.
        ids = _ids_until_damage(islice(queue.dead(), queue.stats().dead), damage)
        changed = sum(1 for _ in _in_parts(queue, ids, done, change))
    if options.json:
        print_json({done: changed, "unchanged": [], "unknown": []})
    else:
        print(f"{jobs_and(changed)} {done}")
    if damage:
        raise damage[0]
    return exit_status.DONE


def _ids_until_damage(records: Iterator[JobRecord], damage: list[Corrupt]) -> Iterator[int]:
    """The ids of all that can be read; ``damage`` gets the reason if that is not all."""
    try:
        for record in records:
            yield record.id
    except Corrupt as error:
        damage.append(error)


def _in_parts(queue: Client, ids: Iterator[int], done: str, change: Change) -> Iterator[int]:
    """The ids to which it was done, so many at a time as one operation may name."""
    changed = 0
    while part := list(islice(ids, MAX_IDS)):
        try:
            these = change(queue, part)
        except JobNotFound:
            continue  # none of them is known, which is told in the end
        except (QueueFull, Unavailable) as error:
            error.args = (f"{error}; {jobs_and(changed + len(error.changed))} {done} before it",)
            raise
        changed += len(these)
        yield from these


COMMANDS = (
    Command("requeue", "run dead jobs again, with as many attempts more", _add_dead_arguments, _requeue),
    Command("discard", "drop dead jobs into the archive", _add_dead_arguments, _discard),
    Command("cancel", "end jobs for good, running or not", _add_cancel_arguments, _cancel),
)
