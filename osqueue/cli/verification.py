"""``osqueue verify``: check every byte of a queue, without opening it; with ``--quarantine`` set damage aside."""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path

from osqueue.cli import exit_status
from osqueue.cli.command import Command, add_json
from osqueue.cli.exit_status import CannotOpen
from osqueue.cli.output import counted, jobs_and, print_json, printable
from osqueue.cli.target import find_directory
from osqueue.errors import OsqueueError, QueueLocked
from osqueue.quarantine import Quarantined, quarantine
from osqueue.storage import Reader, open_directory, open_reader
from osqueue.verify import Findings, verify


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="the queue's directory, open elsewhere or not")
    parser.add_argument(
        "--quarantine", action="store_true", help="move what is damaged aside, and go on without it; nobody has it open"
    )
    add_json(parser)


def _run(options: argparse.Namespace) -> int:
    directory = find_directory(options.path)
    if options.quarantine:
        return _run_quarantine(directory, options)
    try:
        reader: Reader = open_reader(directory)
    except (OsqueueError, OSError, ValueError) as error:
        raise CannotOpen(str(error)) from error
    with closing(reader):
        findings = verify(reader)
    if options.json:
        print_json(findings)
    else:
        _print(findings)
    return exit_status.FAILED if findings.problems else exit_status.DONE


def _run_quarantine(directory: Path, options: argparse.Namespace) -> int:
    try:
        storage = open_directory(directory)
    except QueueLocked as error:
        why = "nothing is set aside while somebody has the queue open; end that process first"
        raise CannotOpen(f"{why}: path={options.path} pid={error.pid} host={error.host}") from error
    except (OsqueueError, OSError, ValueError) as error:
        raise CannotOpen(str(error)) from error
    with closing(storage):
        quarantined = quarantine(storage)
    if options.json:
        print_json(quarantined)
    else:
        _print_quarantined(quarantined)
    return exit_status.FAILED if quarantined.findings.problems else exit_status.DONE


def _print_quarantined(quarantined: Quarantined) -> None:
    for one in quarantined.aside:
        where = "nothing was there" if one.place is None else f"now {printable(one.place)}"
        ids = "" if one.first_id is None else f"jobs {one.first_id} to {one.last_id}; "
        print(f"set aside {printable(one.problem.key)}: {one.problem.name}: {ids}{where}")
    if any(one.keys for one in quarantined.aside):
        print("all keys are forgotten: what is pushed with a key is pushed, though an earlier job had it and waits")
    if quarantined.dropped:
        print(f"{jobs_and(quarantined.dropped, ('is', 'are'))} not in the queue any more")
    if quarantined.unrecorded:
        print(f"{jobs_and(quarantined.unrecorded, ('has', 'have'))} no record any more")
    if not quarantined.mended:
        print("nothing was set aside: a root that is damaged or too old cannot be mended, only put back from a copy")
    _print(quarantined.findings)


def _print(findings: Findings) -> None:
    for problem in findings.problems:
        print(f"{problem.name}: {printable(problem.key)}: {printable(problem.detail)}")
    print(
        f"{jobs_and(findings.waiting, ('waits or runs', 'wait or run'))}, {findings.dead} dead, "
        f"{findings.finished} finished; "
        f"{counted(findings.segments, 'segment')}, {counted(findings.archive_objects, 'archive object')}, "
        f"{counted(findings.leftovers, 'leftover')}; "
        f"{counted(len(findings.problems), 'problem') if findings.problems else 'no problems'}"
    )


VERIFY = Command("verify", "check every byte of a queue; set aside what is damaged", _add_arguments, _run)
